"""`guntainer inspect SOURCE [--json]`: what a rootfs, an archive or an image is; nothing is unpacked, kept or run.

The keys of --json, where digests are 64 hexadecimal digits and sizes are bytes:

    kind       "archive", "folder", "host", "image", or "images": several, of which one has to be chosen
    name       as it was given
    archive    format, compression, size_bytes, entries, unpacked_bytes, architecture, digest, kept, image (that of one?)
    folder     architecture
    image      form ("oci", "docker", "registry"), digest, id, names, platform, platforms, size_bytes, kept,
               layers (lowest first: digest, diff_id, size_bytes, media_type, kept), config (as Config has it)
    images     form, images (names, digest, platforms)
"""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.cli import show
from guntainer.cli.parsing import Parser
from guntainer.jobs.model import USERNS
from guntainer.jobs.values import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from typing import Any

    from guntainer.image.layout import Content, Image
    from guntainer.jobs.model import Source
    from guntainer.store.lookup import Store

    Told = dict[str, Any]

_WIDTH = 14


def parser() -> Parser:
    p = Parser(
        prog="guntainer inspect",
        description="Tell what a rootfs, an archive or an image is. Nothing is unpacked, kept or run.",
    )
    p.add_argument("source", metavar="SOURCE", help="what `run` takes as ROOTFS")
    p.add_argument("--json", action="store_true", help="one object of JSON")
    p.add_argument("--platform", metavar="OS/ARCH", help="of an image for several (default: this machine's)")
    p.add_argument("--userns", choices=USERNS, default="auto", help="for which ids it is kept (default: auto)")
    p.add_argument("--store", metavar="DIR", help="where unpacked archives are kept")
    p.add_argument("--debug", action="store_true", help="tracebacks")
    return p


def main(words: list[str]) -> int:
    from guntainer import opening
    from guntainer.jobs import sources

    args = parser().parse(words)
    try:
        here = os.getcwd()
    except OSError:
        here = ""
    source = sources.parse(args.source, here)
    if args.platform:
        source = source.replace(platform=sources.check_platform(args.platform))
    opening.check(source)
    told = {"name": source.name, **_told(source, _store(args))}
    if args.json:
        import json

        show(json.dumps(told, indent=2) + "\n")
    else:
        show(_text(told))
    return 0


def _store(args: argparse.Namespace) -> Store | None:
    """The store, where there is one: nothing is made."""
    from guntainer import idmap
    from guntainer.store import lookup

    path = args.store or lookup.default_path()
    if not os.path.exists(f"{path}/VERSION"):
        return None
    return lookup.open_store(args.store, idmap.open_ids(args.userns))


def _told(source: Source, store: Store | None) -> Told:
    from guntainer.image import layout

    if source.kind == "host":
        return {"kind": "host", "architecture": os.uname().machine}
    if source.kind == "url":
        raise errors.UsageError(
            f"{source.name}: what is behind a URL is not known before it is fetched", hint="guntainer pull it first"
        )
    if source.kind == "registry":
        from guntainer.remote import registry

        image = registry.open_image(source.location, source.platform, name=source.name, foreign=True)
        return of_image(image, "registry", store)
    form = layout.is_image(source.location)
    if form is not None:
        return _local_image(source, form, store)
    if source.kind in ("oci", "docker-archive") or source.reference:
        compressed = os.path.isfile(source.location) and _compression(source)
        hint = f"it is compressed with {compressed}: guntainer pull reads it" if compressed else ""
        raise errors.RootfsError(f"{source.name}: no container image that can be read where it lies", hint=hint)
    return _folder(source) if os.path.isdir(source.location) else _archive(source, store)


def _compression(source: Source) -> str:
    from guntainer.archive import listing

    return listing.compression_of(source.location)


# -- what there is


def _folder(source: Source) -> Told:
    from guntainer.archive import inspection

    return {"kind": "folder", "architecture": inspection.architecture(source.location) or ""}


def _archive(source: Source, store: Store | None) -> Told:
    from guntainer.archive import listing

    found = listing.look(source.location, source.name)
    return {"kind": "archive", **found.as_dict(), "kept": _kept(store, "rootfs", found.digest)}


def _kept(store: Store | None, kind: str, digest: str) -> bool:
    """Whether an entry is in the store: a look without a lease."""
    return store is not None and os.path.exists(f"{store.entry(digest, kind)}/meta")


def _local_image(source: Source, form: str, store: Store | None) -> Told:
    from guntainer.image import layout

    found = layout.contents(source.location, name=source.name)
    if not source.reference and len({(one.names, one.digest) for one in found}) > 1 and not _one_of_platforms(found):
        return {"kind": "images", "form": form, "images": [_content(one) for one in found]}
    image = layout.open_image(source.location, source.reference, source.platform, name=source.name, foreign=True)
    told = of_image(image, form, store)
    own = [one for one in found if len(found) == 1 or image.digest == one.digest or source.reference in one.names]
    told["names"] = sorted({name for one in own for name in one.names})
    told["platforms"] = list(dict.fromkeys(str(platform) for one in own for platform in one.platforms))
    return told


def _one_of_platforms(found: tuple[Content, ...]) -> bool:
    """Whether several entries are one image for several platforms: under one name, or none, and no platform twice."""
    names = {one.names for one in found}
    platforms = [one.platforms for one in found]
    return len(names) == 1 and len(set(platforms)) == len(platforms)


def _content(one: Content) -> Told:
    return {"names": list(one.names), "digest": one.digest, "platforms": [str(each) for each in one.platforms]}


def of_image(image: Image, form: str, store: Store | None) -> Told:
    """What there is to say of an image, wherever it is."""
    from guntainer.image import platforms

    config = image.config
    platform = str(platforms.normal(config.os or "linux", config.architecture, config.variant))
    layers = [
        {
            "digest": layer.digest,
            "diff_id": layer.diff_id,
            "size_bytes": layer.size_bytes,
            "media_type": layer.media_type,
            "kept": _kept(store, "layers", layer.digest),
        }
        for layer in image.layers
    ]
    shown = config.as_dict()
    shown["env"] = dict(config.env)
    shown["labels"] = dict(config.labels)
    return {
        "kind": "image",
        "form": form,
        "digest": image.digest,
        "id": image.id,
        "names": [],
        "platform": platform,
        "platforms": [platform],
        "size_bytes": sum(layer.size_bytes for layer in image.layers),
        "kept": _kept(store, "images", image.digest),
        "layers": layers,
        "config": shown,
    }


# -- in words


def _row(name: str, text: object) -> str:
    return f"{name:<{_WIDTH}}{printable(str(text))}\n" if text not in ("", None) else ""


def _yes(kept: bool) -> str:
    return "yes" if kept else "no"


def _text(told: Told) -> str:
    rows = {
        "archive": _archive_rows,
        "image": _image_rows,
        "images": _images_rows,
    }.get(told["kind"], _plain_rows)
    return rows(told)


def _plain_rows(told: Told) -> str:
    return _row(told["kind"], told["name"]) + _row("architecture", told["architecture"] or "unknown")


def _archive_rows(told: Told) -> str:
    from guntainer.cli.store import size

    return "".join(
        (
            _row("archive", told["name"]),
            _row("format", told["format"]),
            _row("compression", told["compression"] or "none"),
            _row("size", size(told["size_bytes"])),
            _row("unpacked", f"{size(told['unpacked_bytes'])} in {told['entries']} entries"),
            _row("architecture", "" if told["image"] else told["architecture"] or "unknown"),
            _row("digest", f"sha256:{told['digest']}"),
            _row("image", "yes: guntainer pull reads what is in it" if told["image"] else ""),
            _row("kept", _yes(told["kept"])),
        )
    )


def _images_rows(told: Told) -> str:
    rows = _row(f"{len(told['images'])} images", told["name"])
    for one in told["images"]:
        named = ", ".join(one["names"]) or "without a name"
        rows += f"  sha256:{one['digest']}  {printable(named)}  {printable(', '.join(one['platforms']))}\n"
    return rows


def _image_rows(told: Told) -> str:
    from guntainer.cli.store import size

    others = [one for one in told["platforms"] if one != told["platform"]]
    more = f" (and there is {', '.join(others)})" if others else ""
    rows = _row("image", ", ".join(told["names"]) or told["name"])
    rows += _row("digest", f"sha256:{told['digest']}") + _row("id", f"sha256:{told['id']}")
    rows += _row("platform", told["platform"] + more) + _row("kept", _yes(told["kept"]))
    rows += _row("layers", f"{len(told['layers'])}, {size(told['size_bytes'])}")
    for layer in told["layers"]:
        kept = "kept" if layer["kept"] else "not kept"
        kind = printable(layer["media_type"].rpartition("/")[2])
        for prefix in ("vnd.oci.image.layer.", "vnd.docker.image.rootfs.", "v1.", "diff."):
            kind = kind.removeprefix(prefix)
        rows += f"  sha256:{layer['digest']}  {size(layer['size_bytes'])}  {kind}  {kept}\n"
    return rows + _config_rows(told["config"])


def _config_rows(config: Told) -> str:
    rows = "".join(_row(name, " ".join(map(repr, config[name]))) for name in ("entrypoint", "cmd"))
    rows += "".join(_row("env", f"{name}={value}") for name, value in config["env"].items())
    for name, key in (("workdir", "workdir"), ("user", "user"), ("stop signal", "stop_signal")):
        rows += _row(name, config[key])
    rows += _row("ports", ", ".join(config["ports"])) + _row("volumes", ", ".join(config["volumes"]))
    return rows + "".join(_row("label", f"{name}={value}") for name, value in config["labels"].items())
