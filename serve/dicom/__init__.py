"""DICOM gateway: receives volumes by C-STORE or from a folder, and sends structured reports."""
