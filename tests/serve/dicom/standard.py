"""What PS3.3 requires of an object, from the tables that highdicom brings: an oracle that is neither octc nor the writer."""

from __future__ import annotations

from typing import Any

from highdicom._standard_utils import get_iod_module_map, get_module_attribute_map, get_sop_class_iod_map

CHOICES = ("sr-document-content",)  # its attributes depend on the value type of an item, which these tables do not hold


def faults(made: Any) -> list[str]:
    """Attributes of types 1 and 2 of its mandatory modules that are missing, or empty where they may not be."""
    iod = get_sop_class_iod_map()[str(made.SOPClassUID)]
    found = []
    for module in get_iod_module_map()[iod]:
        if module["usage"] != "M" or module["key"] in CHOICES:
            continue
        for one in get_module_attribute_map()[module["key"]]:
            if one["path"] or one["type"] not in ("1", "2"):
                continue
            if one["keyword"] not in made:
                found.append(f"{module['key']}: {one['keyword']} is missing")
            elif one["type"] == "1" and made[one["keyword"]].is_empty:
                found.append(f"{module['key']}: {one['keyword']} is empty")
    return sorted(set(found))
