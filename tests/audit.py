"""`make audit`: what v2td is made of, and what is known to be wrong with it.

Writes the bill of materials (CycloneDX) of .ci/constraints.txt, then asks pip-audit about each version. Exit code 1
when one has a known hole. An index that gives no advisories, as mirrors often do, is said to be silent: that is no
clean bill.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(".ci/constraints.txt")
BILL = Path("dist/v2td.cdx.json")


def main() -> int:
    """Return 1 when a version has a known hole."""
    tools = Path(sys.argv[1])
    subprocess.run(
        [
            *(tools / "cyclonedx-py", "requirements", CONSTRAINTS, "--pyproject", "pyproject.toml"),
            *("--mc-type", "application", "--output-reproducible", "--of", "JSON", "-o", BILL),
        ],
        check=True,
    )
    bill = tidy(json.loads(BILL.read_text()))
    BILL.write_text(json.dumps(bill, indent=1))
    print(f"{BILL}: {len(bill['components'])} packages with the hashes that the installer requires")
    asked = subprocess.run(
        [
            *(tools / "pip-audit", "--requirement", CONSTRAINTS, "--require-hashes", "--disable-pip"),
            *("--format", "json", "--progress-spinner", "off"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        report = json.loads(asked.stdout)
    except ValueError:
        print(f"advisories: not looked up; pip-audit says: {asked.stderr.strip().splitlines()[-1:]}")
        return 0
    lines, holes = judge(report)
    print("\n".join(lines))
    return 1 if holes else 0


def tidy(bill: dict[str, Any]) -> dict[str, Any]:
    """Return the bill without the descriptions, which repeat the constraints with all their hashes."""
    for component in bill["components"]:
        component.pop("description", None)
    return bill


def judge(report: dict[str, Any]) -> tuple[list[str], int]:
    """Return what pip-audit's report says, in lines, and how many known holes there are."""
    packages = report["dependencies"]
    silent = [each for each in packages if "skip_reason" in each]
    found = [(each, hole) for each in packages for hole in each.get("vulns", ())]
    lines = [
        f"{each['name']} {each['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'no version'}"
        for each, hole in found
    ]
    lines.append(f"advisories: {len(packages) - len(silent)} of {len(packages)} packages looked up, {len(found)} holes")
    if silent:
        lines.append("the package index gives no advisories for the others: ask again where it does")
    return lines, len(found)


if __name__ == "__main__":
    sys.exit(main())
