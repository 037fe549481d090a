"""The document that an image's manifest calls its config: OCI image-spec, "config.md"; docker's schema 2 has the same. Pure."""

from __future__ import annotations

from guntainer import errors
from guntainer.image import document
from guntainer.image.config import Config
from guntainer.image.document import bad, shown

_MOST_DIFF_IDS = 4096  # the same layer may come again and again
_MOST_CONFIG = 512 << 10  # characters of what is kept of a config: the store reads it before each run


def config_of(data: bytes, where: str) -> tuple[Config, tuple[str, ...]]:
    """A config document: what it says, and the diff_ids of its layers, lowest first, 64 hex digits each.

    Its history is not looked at: settings, the entries with `empty_layer`, have neither a diff_id nor a blob.

    Raises:
        RootfsError: it is wrong in itself.
    """
    values = document.table(document.parse(data, where), where)
    inner = document.table(values.get("config") or {}, f"{where}: config")
    at = f"{where}: config"
    workdir = document.text(inner, "WorkingDir", at, "")
    found = Config(
        entrypoint=document.texts(inner, "Entrypoint", at),
        cmd=document.texts(inner, "Cmd", at),
        env=_environment(document.texts(inner, "Env", at), at),
        workdir="" if workdir in ("", "/") else workdir if workdir.startswith("/") else f"/{workdir}",
        user=_user(document.text(inner, "User", at, ""), at),
        stop_signal=document.text(inner, "StopSignal", at, ""),
        ports=document.names(inner, "ExposedPorts", at),
        volumes=document.names(inner, "Volumes", at),
        labels=document.pairs(inner, "Labels", at),
        architecture=document.text(values, "architecture", where, ""),
        os=document.text(values, "os", where, ""),
        variant=document.text(values, "variant", where, ""),
    )
    if len(repr(found)) > _MOST_CONFIG:
        raise bad(
            where, f"what it says of how it is run is longer than {_MOST_CONFIG >> 10} KiB", hint="it may be its labels"
        )
    if "rootfs" not in values:  # config.md has it REQUIRED; without, a manifest might be taken for a config
        raise bad(where, "rootfs is missing: no image's config")
    rootfs = document.table(values["rootfs"] or {}, f"{where}: rootfs")
    if document.text(rootfs, "type", f"{where}: rootfs", "layers") != "layers":
        raise bad(where, "rootfs: its type is not layers")
    ids = document.texts(rootfs, "diff_ids", f"{where}: rootfs")
    if len(ids) > _MOST_DIFF_IDS:
        raise bad(where, f"rootfs: {len(ids)} diff_ids are more than {_MOST_DIFF_IDS}")
    return found, tuple(document.digest_of(one, f"{where}: rootfs: diff_ids") for one in ids)


def _environment(texts: tuple[str, ...], where: str) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}
    for one in texts:
        name, equals, value = one.partition("=")
        if not name:
            raise bad(where, f"Env: {shown(one)}: a variable without a name")
        if equals:
            found[name] = value
    return tuple(found.items())


def _user(text: str, where: str) -> str:
    user = text.strip().removesuffix(":")
    if not user:
        return ""
    from guntainer.jobs import values

    try:
        return values.check_user(user)
    except errors.UsageError as error:
        raise bad(where, f"User: {error.message}") from None
