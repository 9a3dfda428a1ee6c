#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Asks libvirt about the goldens of domain XML.

All but those of TDX: the installed libvirt's schema (virt-xml-validate), and its test driver, which parses a domain as the
QEMU driver does. With --schemas FOLDER: the schema of another libvirt, for all goldens; those of TDX need libvirt 11.6. A
spoilt golden must be refused, so that a check that checks nothing is found out.
Usage: check_xml.py --goldens FOLDER [--schemas FOLDER]. Ends with 77 where libvirt's tools are not installed.
"""
import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

SPOILT = ("<on_crash>destroy</on_crash>", "<on_crash>explode</on_crash>")


def run(*command):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    return result.returncode == 0, (result.stdout + result.stderr).strip()


def by_schema(schemas):
    def check(path):
        if schemas is None:
            return run("virt-xml-validate", path, "domain")
        return run("xmllint", "--noout", "--relaxng", schemas / "domain.rng", path)
    return check


def by_test_driver(path):
    # A definition lives as long as the connection to this driver: defining and showing it is one call.
    return run("virsh", "--connect", "test:///default", f"define --validate {path}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goldens", type=pathlib.Path, required=True)
    parser.add_argument("--schemas", type=pathlib.Path)
    options = parser.parse_args()
    needed = ["xmllint"] if options.schemas else ["virsh", "virt-xml-validate", "xmllint"]
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        print(f"skipped: {', '.join(missing)} not installed (apt install libvirt-clients libxml2-utils)")
        return 77
    checks = {"schema": by_schema(options.schemas)}
    if not options.schemas:
        checks["test driver"] = by_test_driver
    goldens = sorted(options.goldens.glob("*/expected.xml"))
    wrong = 0
    checked = 0
    for golden in goldens:
        text = golden.read_text()
        if "launchSecurity" in text and not options.schemas:
            continue
        for name, check in checks.items():
            fits, words = check(golden)
            checked += 1
            print(f"{golden.parent.name}: {name}: {'fits' if fits else 'REFUSED'}")
            if not fits:
                print(words)
                wrong += 1
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as spoilt:
            assert SPOILT[0] in text, golden
            spoilt.write(text.replace(*SPOILT))
            spoilt.flush()
            for name, check in checks.items():
                if check(pathlib.Path(spoilt.name))[0]:
                    print(f"{golden.parent.name}: {name}: a spoilt domain was NOT refused")
                    wrong += 1
    print(f"{checked} checks of {len(goldens)} goldens, {wrong} wrong")
    return 1 if wrong or not checked else 0


if __name__ == "__main__":
    sys.exit(main())
