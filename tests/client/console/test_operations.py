"""Every documented operation over HTTP: what it asks of the coordinator, what it answers, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from redfs.client.cli.output import message_data
from redfs.client.console import pool_routes, volume_routes
from redfs.client.console.errors import STATUS, status_of
from redfs.client.console.models import model_of
from redfs.core.errors import BY_CODE, FsError, RedfsError
from redfs.proto.gen import cluster_pb2 as pb
from tests.client.console.rig import CHANGE, ConsoleCoordinator, Site, refused, site

# (method, path in the documentation) -> (path, body) of a request that works, one after another.
EXAMPLES: dict[tuple[str, str], tuple[str, Any]] = {
    ("post", "/volumes"): ("/volumes", {"name": "photos", "protection": "mirror:2", "color": "#aa0000"}),
    ("post", "/volumes/{name}/snapshots"): ("/volumes/photos/snapshots", {"snapshot": "mon"}),
    ("post", "/volumes/{name}/clones"): ("/volumes/photos@mon/clones", {"name": "try-it", "description": "mine"}),
    ("post", "/volumes/{name}/rollback"): ("/volumes/photos@mon/rollback", {"confirm": "photos", "keep": "old"}),
    ("get", "/volumes"): ("/volumes", None),
    ("get", "/volumes/{name}"): ("/volumes/photos@mon", None),
    ("patch", "/volumes/{name}"): ("/volumes/photos", {"description": "", "quota_bytes": 1 << 40}),
    ("put", "/volumes/{name}/schedules/{label}"): ("/volumes/photos/schedules/hourly", {"every_s": 3600, "keep": 24}),
    ("get", "/volumes/{name}/schedules"): ("/volumes/photos/schedules", None),
    ("get", "/schedules"): ("/schedules", None),
    ("delete", "/volumes/{name}/schedules/{label}"): ("/volumes/photos/schedules/hourly", None),
    ("get", "/diff"): ("/diff?before=photos@mon&after=photos&limit=5", None),
    ("post", "/freed"): ("/freed", {"names": ["photos", "photos@mon"]}),
    ("post", "/copies"): (
        "/copies",
        {"source": "photos@mon", "source_path": "/a%20b/%FF", "target": "photos", "target_path": "/c"},
    ),
    ("get", "/status"): ("/status", None),
    ("get", "/nodes"): ("/nodes", None),
    ("get", "/jobs"): ("/jobs", None),
    ("post", "/jobs/{id}/{action}"): ("/jobs/7/pause", None),
    ("post", "/jobs"): ("/jobs", {"kind": "rebalance"}),
    ("post", "/nodes/{id}/{action}"): ("/nodes/1/remove?confirm=1", None),
    ("post", "/volumes/{name}/rename"): ("/volumes/photos@mon/rename", {"new_name": "photos@tue"}),
    ("delete", "/volumes/{name}"): ("/volumes/try-it?confirm=try-it", None),
}
WRONG: list[tuple[str, str, Any]] = [
    ("POST", "/volumes", {}),
    ("POST", "/volumes", {"name": 5}),
    ("POST", "/volumes", {"name": "a", "nmae": "b"}),
    ("POST", "/volumes", {"name": "a", "minimum_nodes": -1}),
    ("POST", "/volumes", {"name": "a", "quota_bytes": 1 << 70}),
    ("POST", "/volumes", {"name": "a", "quota_bytes": "5"}),
    ("POST", "/volumes", {"name": "a" * 200}),
    ("POST", "/volumes", ["a"]),
    ("PATCH", "/volumes/a", {"kind": "live"}),
    ("PUT", "/volumes/a/schedules/b", {"every_s": 0, "keep": 1}),
    ("POST", "/jobs/7/explode", None),
    ("POST", "/jobs", {"kind": ""}),
    ("POST", "/nodes/1/explode", None),
    ("POST", "/nodes/1/remove", None),
    ("POST", "/nodes/1/remove?confirm=2", None),
    ("POST", "/jobs/x/pause", None),
    ("POST", "/freed", {"names": ["a"] * 1001}),
    ("POST", "/copies", {"source": "a", "source_path": "/100%", "target": "b", "target_path": "/"}),
    ("GET", "/diff?before=a", None),
    ("GET", "/diff?before=a&after=b&limit=0", None),
    ("GET", "/browse/a?limit=1001", None),
]
WITH_DATA = {("get", "/browse/{name}"), ("get", "/versions/{volume}"), ("get", "/download/{name}")}
"""Tested where there are files: test_files.py."""
ENDLESS = {("get", "/events")}
"""test_events.py."""


def route_of(method: str, path: str) -> APIRoute:
    return next(
        route
        for routes in (pool_routes, volume_routes)
        for route in routes.router.routes
        if isinstance(route, APIRoute) and route.path == path and method.upper() in (route.methods or ())
    )


async def test_every_documented_operation_answers_as_documented(console: Site) -> None:
    spec = await console.data("/openapi.json")
    documented = {
        (method, path.removeprefix("/api/v1")) for path, operations in spec["paths"].items() for method in operations
    }
    assert documented == {*EXAMPLES, *WITH_DATA, *ENDLESS, ("head", "/download/{name}")}
    for (method, path), (address, body) in EXAMPLES.items():
        answer = await console.change(method, address, body)
        assert answer.status_code == 200, f"{method} {address}: {answer.text}"
        assert answer.headers["cache-control"] == "no-store"
        TypeAdapter(route_of(method, path).response_model).validate_python(answer.json(), strict=True)


async def test_the_documentation_names_parameters_refusals_and_the_header(console: Site) -> None:
    spec = await console.data("/openapi.json")
    names = []
    for path, operations in spec["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], path
            assert operation["description"], path
            names.append(operation["operationId"])
            assert "422" not in operation["responses"], path
            assert "Successful" not in operation["responses"]["200"]["description"]
            for status in ("400", "403", "503"):
                assert status in operation["responses"]
            parameters = {parameter["name"]: parameter for parameter in operation.get("parameters", [])}
            assert set(re.findall(r"\{(\w+)\}", path)) <= set(parameters)
            assert ("X-RedFS-Console" in parameters) == (method not in ("get", "head"))
            assert ("413" in operation["responses"]) == ("requestBody" in operation)
    assert len(set(names)) == len(names)
    error = spec["components"]["schemas"]["Error"]
    assert set(error["properties"]) == {"error"}
    volume = spec["components"]["schemas"]["Volume"]
    assert set(volume["properties"]) == {field.name for field in pb.Volume.DESCRIPTOR.fields}
    assert volume["properties"]["quota_bytes"]["description"].startswith("logical bytes that it may hold")
    assert volume["additionalProperties"] is False


def test_a_reply_that_is_not_as_the_message_says_does_not_fit_its_schema() -> None:
    data = message_data(pb.Volume(name="v", usage=pb.Usage(logical_bytes=5)))
    model_of(pb.Volume).model_validate(data, strict=True)
    wrongs: list[dict[str, Any]] = [{"name": 5}, {"more": 1}, {"usage": {}}, {"allowed": "clone"}, {"quota_bytes": -1}]
    for wrong in wrongs:
        with pytest.raises(ValueError):
            model_of(pb.Volume).model_validate(data | wrong, strict=True)


async def test_what_reaches_the_coordinator(console: Site, coordinator: ConsoleCoordinator) -> None:
    for (method, _), (address, body) in EXAMPLES.items():
        await console.change(method, address, body)
    asked = {type(call).__name__: call for call in coordinator.calls}
    assert asked["VolumeCreate"] == pb.VolumeCreate(name="photos", protection="mirror:2", color="#aa0000")
    assert asked["VolumeClone"] == pb.VolumeClone(
        source="photos@mon", name="try-it", settings=pb.VolumeSet(description="mine")
    )
    assert asked["VolumeRollback"] == pb.VolumeRollback(snapshot="photos@mon", keep="old")
    settings = asked["VolumeSet"]
    assert settings == pb.VolumeSet(name="photos", description="", quota_bytes=1 << 40)
    assert settings.HasField("description"), "an empty text is a change, too"
    assert not settings.HasField("color")
    assert asked["VolumeDelete"] == pb.VolumeDelete(name="try-it", force=True)
    assert asked["CopyFiles"].source_path == b"/a b/\xff"
    assert asked["JobControl"] == pb.JobControl(job_id=7, action="pause")
    assert asked["JobStart"] == pb.JobStart(kind="rebalance")
    assert asked["NodeControl"] == pb.NodeControl(node_id=1, action="remove")
    assert list(asked["FreedRequest"].names) == ["photos", "photos@mon"]


async def test_what_destroys_asks_for_the_name(console: Site, coordinator: ConsoleCoordinator) -> None:
    await console.change("POST", "/volumes", {"name": "photos"})
    await console.change("POST", "/volumes/photos/snapshots", {"snapshot": "mon"})
    coordinator.calls.clear()
    for query in ("", "?confirm=", "?confirm=phots", "?confirm=photos@mon"):
        assert "'photos'" in refused(await console.change("DELETE", f"/volumes/photos{query}"), 400, "invalid")
    for confirm in ("", "photos@mon", "PHOTOS"):
        body = {"confirm": confirm}
        refused(await console.change("POST", "/volumes/photos@mon/rollback", body), 400, "invalid")
    refused(await console.change("POST", "/volumes/photos@mon/rollback", {}), 400, "invalid")
    refused(await console.change("POST", "/volumes/photos/rollback", {"confirm": "photos"}), 400, "invalid")
    assert coordinator.calls == []


async def test_refusals_of_the_coordinator_keep_their_class_and_line(console: Site) -> None:
    await console.change("POST", "/volumes", {"name": "photos"})
    assert (
        refused(await console.change("POST", "/volumes", {"name": "photos"}), 409, "exists")
        == "there is a volume 'photos' already"
    )
    assert refused(await console.get("/volumes/none"), 404, "not_found") == "no volume 'none'"
    refused(await console.change("POST", "/volumes", {"name": "UPPER"}), 400, "invalid")
    refused(await console.change("POST", "/jobs/8/pause"), 404, "not_found")
    refused(await console.change("POST", "/jobs/7/cancel"), 403, "not_allowed")
    refused(await console.get("/diff?before=none&after=photos"), 404, "not_found")
    refused(await console.change("POST", "/freed", {"names": ["none"]}), 404, "not_found")
    refused(await console.change("DELETE", "/volumes/photos/schedules/none"), 404, "not_found")


async def test_what_does_not_fit_is_said_in_one_line(console: Site) -> None:
    for method, path, body in WRONG:
        assert refused(await console.change(method, path, body), 400, "invalid")


async def test_bodies_that_are_no_json_and_addresses_that_are_none(console: Site) -> None:
    broken = await console.browser.post("/api/v1/volumes", content=b"{", headers=CHANGE)
    refused(broken, 400, "invalid")
    half = b'{"name": "\\ud800"}'
    refused(await console.browser.post("/api/v1/volumes", content=half, headers=CHANGE), 400, "invalid")
    refused(await console.get("/nothing"), 404, "not_found")
    refused(await console.change("DELETE", "/status"), 405, "invalid")
    refused(await console.browser.options("/api/v1/volumes", headers=CHANGE), 405, "invalid")


async def test_a_diff_is_cut_at_its_limit_and_its_paths_hold_any_bytes(
    console: Site, coordinator: ConsoleCoordinator
) -> None:
    coordinator.volumes["photos"] = pb.Volume(name="photos")
    found = await console.data("/diff?before=photos&after=photos")
    assert found["complete"]
    (entry,) = found["entries"]
    assert (entry["path"], entry["name"], entry["new_path"]) == ("/a/%FF%25", "/a/\ufffd%", "")
    coordinator.diff = [pb.DiffEntry(change="deleted", path=b"%d" % n) for n in range(6)]
    cut = await console.data("/diff?before=photos&after=photos&limit=5")
    assert not cut["complete"]
    assert [entry["name"] for entry in cut["entries"]] == [f"/{n}" for n in range(5)]
    coordinator.diff = coordinator.diff[:5]
    assert (await console.data("/diff?before=photos&after=photos&limit=5"))["complete"]


async def test_without_a_coordinator_the_page_is_there_and_the_api_says_why(
    coordinator: ConsoleCoordinator, page: Path
) -> None:
    coordinator.stop()
    async with site(coordinator.address, page) as console:
        assert (await console.browser.get("/")).status_code == 200
        for path in ("/status", "/volumes", "/browse/photos", "/download/photos?path=/a"):
            assert "redfs up" in refused(await console.get(path), 503, "unavailable")


def test_every_error_of_the_family_has_its_status() -> None:
    for code, cls in BY_CODE.items():
        error: RedfsError = cls(5) if issubclass(cls, FsError) else cls("text")
        assert error.code == code
        assert 400 <= status_of(error) < 600
        assert cls in STATUS
