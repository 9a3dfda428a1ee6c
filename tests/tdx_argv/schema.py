# SPDX-License-Identifier: Apache-2.0
"""Checks JSON against QEMU's own description of itself (query-qmp-schema, QEMU docs/devel/qapi-code-gen.rst)."""


class Schema:
    def __init__(self, entries: list[dict]):
        self._types = {entry["name"]: entry for entry in entries}

    def problems_of_command(self, command: str, value: dict) -> list[str]:
        """What is wrong with `value` as the arguments of `command`; object-add's are those of -object, netdev_add's
        those of -netdev."""
        return self._problems(self._types[command]["arg-type"], value, command)

    def _problems(self, type_name: str, value, where: str) -> list[str]:
        entry = self._types[type_name]
        kind = entry["meta-type"]
        if kind == "object":
            return self._object_problems(entry, value, where)
        if kind == "array":
            if not isinstance(value, list):
                return [f"{where}: a list is expected, not {value!r}"]
            return [problem for index, member in enumerate(value)
                    for problem in self._problems(entry["element-type"], member, f"{where}[{index}]")]
        if kind == "enum":
            names = [member["name"] for member in entry["members"]]
            return [] if value in names else [f"{where}: {value!r} is none of {', '.join(names)}"]
        if kind == "alternate":
            choices = [self._problems(member["type"], value, where) for member in entry["members"]]
            return [] if [] in choices else choices[0]
        expected = {"string": str, "int": int, "number": (int, float), "boolean": bool}.get(entry["json-type"])
        is_bool_for_number = isinstance(value, bool) and entry["json-type"] != "boolean"
        if expected and (not isinstance(value, expected) or is_bool_for_number):
            return [f"{where}: a {entry['json-type']} is expected, not {value!r}"]
        return []

    def _object_problems(self, entry: dict, value, where: str) -> list[str]:
        if not isinstance(value, dict):
            return [f"{where}: an object is expected, not {value!r}"]
        members = {member["name"]: member for member in entry["members"]}
        if "variants" in entry:
            choice = value.get(entry["tag"])
            for variant in entry["variants"]:
                if variant["case"] == choice:
                    branch = self._types[variant["type"]]
                    members.update({member["name"]: member for member in branch["members"]})
        problems = []
        for name, member in value.items():
            if name not in members:
                problems.append(f"{where}: there is no member {name!r}")
            else:
                problems += self._problems(members[name]["type"], member, f"{where}.{name}")
        return problems + [f"{where}: member {name!r} is missing" for name, member in members.items()
                           if "default" not in member and name not in value]
