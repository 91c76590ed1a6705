"""The wire contract: its generated code is up to date, and nothing that can be 0 is lost in JSON."""

from pathlib import Path

import pytest
from google.api.annotations_pb2 import http
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor

from spheroidd.daemon.service.tokens import Role
from spheroidd.protocols import spheroidd_pb2 as wire
from tests.protocols.wire_contract import GENERATED, ROOT, generate

NUMBERS = {
    getattr(FieldDescriptor, f"TYPE_{name}")
    for name in ("DOUBLE", "FLOAT", "INT32", "INT64", "UINT32", "UINT64", "FIXED32", "FIXED64", "BOOL")
}


def test_regenerating_changes_nothing(tmp_path: Path) -> None:
    generate(tmp_path)
    for name in GENERATED:
        fresh = (tmp_path / "spheroidd" / "protocols" / name).read_text(encoding="utf-8")
        assert fresh == (ROOT / "protocols" / name).read_text(encoding="utf-8"), f"{name} is old: run `make proto`"


def test_every_number_knows_whether_it_was_given() -> None:
    for message in wire.DESCRIPTOR.message_types_by_name.values():
        for field in message.fields:
            if field.type in NUMBERS and not field.is_repeated:
                assert field.has_presence, f"{message.name}.{field.name} would lose its zeros: make it optional"


def test_a_viability_of_zero_stays_in_json_and_an_unknown_one_is_left_out() -> None:
    text = json_format.MessageToDict(wire.Result(v_count=0.0, n_live=0), preserving_proto_field_name=True)
    assert text == {"v_count": 0.0, "n_live": "0"}


def test_every_method_but_the_slices_can_be_had_over_http() -> None:
    service = wire.DESCRIPTOR.services_by_name["Spheroidd"]
    without = {method.name for method in service.methods if not method.GetOptions().HasExtension(http)}
    assert without == {"PushSlices"}


def test_every_method_says_which_role_may_call_it() -> None:
    service = wire.DESCRIPTOR.services_by_name["Spheroidd"]
    silent = {m.name for m in service.methods if m.GetOptions().Extensions[wire.least_role] == wire.ROLE_UNSPECIFIED}
    assert silent == set(), "write `option (least_role) = ...;` into the method in spheroidd.proto"


def test_the_roles_of_the_contract_are_those_of_tokens() -> None:
    assert {name.removeprefix("ROLE_"): number for name, number in wire.Role.items() if number} == {
        role.name: role.value for role in Role if role is not Role.NONE
    }


@pytest.mark.parametrize("name", ["SkipWell", "RepeatWell", "StartPlate", "GetPushProgress"])
def test_names_in_a_path_are_fields_of_the_request(name: str) -> None:
    method = wire.DESCRIPTOR.services_by_name["Spheroidd"].methods_by_name[name]
    rule = method.GetOptions().Extensions[http]
    path = rule.get or rule.post
    for part in path.split("{")[1:]:
        assert part.partition("}")[0] in method.input_type.fields_by_name
