"""From a valid file to a broken or hostile one: each function takes a source of randomness and what is sound.

The source is a ``random.Random``: a seeded one in the script, Hypothesis' own in the tests.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import re
import struct
import zipfile
from pathlib import PurePosixPath
from random import Random
from typing import Any

import numpy as np

Files = dict[str, bytes]
"""A folder: contents by relative path. A content that begins with `LINK` is a symbolic link to what follows."""

LINK = b"\0link\0"

WORDS = (
    *(
        "",
        " ",
        "a",
        "\0",
        "\n",
        "\r\n",
        "\t",
        "\x1b[2J\x1b]0;owned\x07",
        "\x9b31m",
        "a\u202eb",
        "\ufeff",
        "\ud800",
        "é",
        "語",
    ),
    *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</style><svg onload=alert(1)>", "<!--", "]]>"),
    *(
        "{{ 7 * 7 }}",
        "{% include 'x' %}",
        "{0}",
        "{en}",
        "{x.__class__.__mro__}",
        "{",
        "}",
        "%s%n",
        "${HOME}",
        "$(id)",
        "`id`",
    ),
    *(
        "$\\frac{$",
        "$x$",
        "[red]x[/red]",
        "[/]",
        "\\u0000",
        "=1+1",
        "'; drop",
        "-1",
        "1_000",
        "nan",
        "inf",
        "None",
        "true",
    ),
    *(
        "../../x",
        "/etc/passwd",
        "..",
        ".",
        "/dev/zero",
        "C:\\x",
        "a/b",
        "\\\\host\\x",
        "x" * 300,
        "語" * 200,
        "a b " * 500,
    ),
    *("__class__", "constructor", "id", "step", "value", "done", "failed", "running", "csv", "linear", "digits"),
)
NUMBERS = (
    *(
        "0",
        "-0",
        "-1",
        "1",
        "2",
        "3",
        "1e999",
        "-1e999",
        "1e308",
        "1e-320",
        "NaN",
        "Infinity",
        "-Infinity",
        "0.5",
        "1.5",
    ),
    *("2147483647", "2147483648", "4294967296", "9223372036854775807", "9223372036854775808", "18446744073709551616"),
    *("1" + "0" * 25, "1" + "0" * 400, "9" * 5000, "-1" + "0" * 400, "true", "1e18", "1e400"),
)
WHOLE = (
    0,
    1,
    2,
    3,
    127,
    128,
    255,
    256,
    2**15,
    2**16 - 1,
    2**24,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
)


class Raw:
    """A piece of JSON to be written as it is."""

    def __init__(self, text: str):
        self.text = text


def nested(rng: Random) -> str:
    """Lists or objects inside each other."""
    depth = rng.choice((10, 60, 200, 700, 950, 2000, 50_000))
    return rng.choice(("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth, "[" * depth))


def hostile_value(rng: Random) -> Any:
    """A JSON value that nobody expects."""
    kind = rng.randrange(8)
    if kind == 0:
        return rng.choice(WORDS)
    if kind == 1:
        return Raw(rng.choice(NUMBERS))
    if kind == 2:
        return Raw(nested(rng)) if rng.randrange(4) == 0 else []
    if kind == 3:
        return rng.choice((None, True, False, [], {}, [[]], {"": {}}, [None], "0", [1, 2, 3], {"value": []}))
    if kind == 4:
        return {rng.choice(WORDS): rng.choice(WORDS)}
    if kind == 5:
        return [rng.choice(WORDS)] * rng.choice((1, 2, 5, 100))
    if kind == 6:
        return rng.choice((-1, 0, 1, 2, 0.5, -0.5, 1e18, -1e18, 1e308, 2**31, 2**53, 2**62))
    return [Raw(rng.choice(NUMBERS)), rng.choice(WORDS)]


def change_value(rng: Random, value: Any) -> Any:
    """One change somewhere inside a JSON value; the value given is left alone."""
    root = [copy.deepcopy(value)]
    holder: Any = root
    key: Any = 0
    while isinstance(holder[key], dict | list) and holder[key] and rng.randrange(8):
        holder = holder[key]
        key = rng.choice(list(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    kind = rng.randrange(8)
    if kind < 5 or holder is root:
        holder[key] = hostile_value(rng)
    elif kind == 5:
        del holder[key]
    elif isinstance(holder, dict):
        holder[rng.choice(WORDS)] = holder.pop(key) if kind == 6 else copy.deepcopy(holder[key])
    else:
        holder.insert(key, hostile_value(rng) if kind == 6 else copy.deepcopy(holder[key]))
    return root[0]


def dump(value: Any) -> bytes:
    """JSON text, with what is `Raw` as it is."""
    held: list[str] = []

    def keep(item: Raw) -> str:
        held.append(item.text)
        return f"\0raw{len(held) - 1}\0"

    text = json.dumps(value, default=keep)
    return re.sub(r'"\\u0000raw(\d+)\\u0000"', lambda match: held[int(match[1])], text).encode()


def mutate_bytes(rng: Random, data: bytes) -> bytes:
    """Cut off, flip, splice, repeat, or put a number where a header may hold one."""
    kind, size = rng.randrange(8), len(data)
    place = rng.randrange(size + 1)
    head = min(place, rng.choice((4, 16, 64, 4096)))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:head] + bytes((rng.randrange(256),)) + data[head + 1 :]
    if kind == 2:
        return data[:place] + data[min(size, place + rng.choice((1, 2, 4, 100))) :]
    if kind == 3:
        return data[:place] + bytes(rng.randrange(256) for _ in range(rng.choice((1, 2, 8, 100)))) + data[place:]
    if kind == 4:
        form = rng.choice((">I", "<I", ">H", "<H", "<Q", ">Q", "B"))
        number = rng.choice(WHOLE) % 256 ** struct.calcsize(form)
        start = head // 4 * 4
        return data[:start] + struct.pack(form, number) + data[start + struct.calcsize(form) :]
    if kind == 5:
        other = rng.randrange(size + 1)
        return data[: min(place, other)] + data[max(place, other) :] + data[min(place, other) : max(place, other)]
    if kind == 6:
        return data * rng.choice((0, 2, 3))
    return data[:place] + rng.choice(WORDS).encode("utf-8", "surrogatepass") + data[place:]


def mutate_json(rng: Random, data: bytes) -> bytes:
    """Change a value in an object, or the bytes."""
    kind = rng.randrange(6)
    if kind == 0:
        return mutate_bytes(rng, data)
    return dump(rename(rng, json.loads(data)) if kind == 1 else change_value(rng, json.loads(data)))


def rename(rng: Random, value: Any) -> Any:
    """Replace about half of all texts in a JSON value, the names of the entries left alone."""
    if isinstance(value, dict):
        return {name: rename(rng, item) for name, item in value.items()}
    if isinstance(value, list):
        return [rename(rng, item) for item in value]
    return rng.choice(WORDS[:-12]) if isinstance(value, str) and rng.randrange(2) else value


def mutate_lines(rng: Random, data: bytes) -> bytes:
    """Change an object in one line, the order of the lines, or the bytes."""
    lines, kind = data.splitlines(keepends=True), rng.randrange(8)
    index = rng.randrange(len(lines))
    if kind == 0:
        return mutate_bytes(rng, data)
    if kind == 1:
        lines.insert(rng.randrange(len(lines)), lines[index])
    elif kind == 2:
        lines[index] = mutate_bytes(rng, lines[index])
    elif kind == 3:  # the same change everywhere
        record, words = json.loads(lines[0]), rng.choice(WORDS)
        name = rng.choice(list(record))
        changed = (
            {**json.loads(line), (words if name != "step" else words + "x"): hostile_value(rng)} for line in lines
        )
        lines = [dump(record) + b"\n" for record in changed]
    else:
        lines[index] = dump(change_value(rng, json.loads(lines[index]))) + rng.choice((b"\n", b"\n", b"\n", b""))
    return b"".join(lines)


def mutate_text(rng: Random, data: bytes) -> bytes:
    """Replace a number, a quoted text, a name or a cell by another one, or change the bytes."""
    kind, text = rng.randrange(6), data.decode()
    if kind == 0:
        return mutate_bytes(rng, data)
    tokens = list(re.finditer(r'"[^"\n]*"|[\w.-]+|[\[\]{}=,\n;]', text))
    token = rng.choice(tokens)
    word, number = rng.choice(WORDS), rng.choice((*NUMBERS, "inf", "-nan", "0x" + "f" * 400, "1979-05-27T07:32:00Z"))
    quoted = json.dumps(word, ensure_ascii=False)
    deep = rng.choice((10, 200, 3000))
    new = rng.choice(
        (
            word,
            number,
            number,
            quoted,
            quoted,
            f"[{number}]",
            f"[{quoted}, {number}]",
            "[" * deep + "]" * deep,
            "{a = 1}",
            "",
        )
    )
    if kind == 1:
        start, line = token.start(), f'\n"{rng.choice(("design", "a.b", "grid", "model.name"))}" = {new}\n'
        text = text[:start] + line + text[start:]
    else:
        text = text[: token.start()] + new + text[token.end() :]
    return text.encode("utf-8", "surrogatepass")


def mutate_npy(rng: Random, data: bytes) -> bytes:
    """Change the header of a numpy array, or the bytes."""
    end = 10 + int.from_bytes(data[8:10], "little")
    if rng.randrange(3) == 0:
        return mutate_bytes(rng, data)
    kinds = (
        "'|O'",
        "'<f4'",
        "'<i8'",
        "'|u1'",
        "'<U5'",
        "'|V8'",
        "'>f8'",
        "[('a', '<f4')]",
        "'<M8[s]'",
        "'" + "(2,)" * 500 + "f'",
    )
    shapes = (
        "()",
        "(0, 2)",
        "(-1, 2)",
        "(4,)",
        "(4, 2)",
        "(2**62, 2)",
        "(4611686018427387904, 2)",
        "(True, 2)",
        "(1e3,)",
        "[4]",
    )
    shapes += (
        f"({rng.choice(NUMBERS)}, 2)",
        "(" * 200 + ")" * 200,
        "(" + "1," * 3000 + ")",
        "(4, 2, 0)",
        "None",
        "('4', 2)",
    )
    parts = {"descr": "'<f4'", "fortran_order": rng.choice(("False", "True", "1", "None")), "shape": "(4, 2)"}
    name = rng.choice(("descr", "fortran_order", "shape"))
    parts[name] = rng.choice({"descr": kinds, "shape": shapes}.get(name, ("False", "True", "[[[[", "__import__('os')")))
    if rng.randrange(6) == 0:
        parts[rng.choice(("extra", "descr", "\0"))] = rng.choice(kinds)
    text = "{" + ", ".join(f"{key!r}: {value}" for key, value in parts.items()) + "}"
    text = rng.choice((text, text, text, "(" * 5000, "{" + "'a':" * 300, text[:-1])) + "\n"
    header = text.encode()
    length = rng.choice((len(header), len(header), len(header), 2**16 - 1, 0, len(header) * 2)) % 2**16
    version = rng.choice((b"\x01\x00", b"\x01\x00", b"\x02\x00", b"\x03\x00"))
    field = (
        struct.pack("<H", length)
        if version == b"\x01\x00"
        else struct.pack("<I", rng.choice((length, 2**32 - 1, 10_001)))
    )
    return data[:6] + version + field + header + data[end:]


def mutate_npz(rng: Random, data: bytes) -> bytes:
    """Change an array in the archive, its directory, what an array expands to, or the bytes."""
    if rng.randrange(3) == 0:
        return mutate_bytes(rng, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    name, out = rng.choice(list(held)), io.BytesIO()
    kind = rng.randrange(6)
    if kind < 3:
        held[name] = mutate_npy(rng, held[name])
    elif kind == 3:
        held[rng.choice(("../../x.npy", "/x.npy", "x.npy/", "\x1b[2J.npy", "x"))] = held.pop(name)
    elif kind == 4:  # expands a thousandfold
        array = np.zeros((rng.choice((10_000, 200_000)), 2), np.uint8)
        with io.BytesIO() as stream:
            np.save(stream, array if rng.randrange(2) else array[:, 0])
            held[name] = stream.getvalue()
    compression = rng.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    )
    with zipfile.ZipFile(out, "w", compression) as archive:
        for member, content in held.items():
            archive.writestr(member, content)
    packed = out.getvalue()
    if kind == 5:  # the directory lies about a size
        at = packed.rfind(b"PK\x01\x02") + rng.choice((8, 10, 16, 20, 24, 42))
        packed = packed[:at] + struct.pack("<I", rng.choice(WHOLE) % 2**32) + packed[at + 4 :]
    return packed


def mutate_gzip(rng: Random, data: bytes) -> bytes:
    """Change what a gzipped file holds, let it expand, or change its bytes."""
    if rng.randrange(3) == 0:
        return mutate_bytes(rng, data)
    inner = gzip.decompress(data)
    inner = mutate_bytes(rng, inner) if rng.randrange(4) else inner + bytes(rng.choice((1, 1000, 300_000)))
    return gzip.compress(inner, 1)


BY_SUFFIX = {
    ".json": mutate_json,
    ".jsonl": mutate_lines,
    ".toml": mutate_text,
    ".csv": mutate_text,
    ".npz": mutate_npz,
    ".npy": mutate_npy,
    ".gz": mutate_gzip,
}


def mutate_files(rng: Random, files: Files) -> Files:
    """Change one file of a folder in a place or several; sometimes leave it out, or make it a link that leads away."""
    found = dict(files)
    name = rng.choice(sorted(found))
    kind = rng.randrange(40)
    if kind == 0:
        del found[name]
    elif kind == 1:
        found[name] = LINK + rng.choice(
            (b"../outside/secret.json", b"../outside", b"/dev/zero", b"/etc/passwd", b"nowhere", name.encode())
        )
    else:
        mutate = BY_SUFFIX.get(PurePosixPath(name).suffix, mutate_bytes)
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            try:
                found[name] = mutate(rng, found[name])
            except Exception:  # it is broken by now, in whatever way
                found[name] = mutate_bytes(rng, found[name])
    return found
