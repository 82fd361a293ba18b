"""An artifact behind a PACS: volumes in by C-STORE or from a folder, structured reports out."""
