"""A sound artifact goes in; one that was damaged, or made to do harm, comes out. All by a seed.

Damage leaves the checksums alone, as a bad disk does; an attacker computes them again.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from featherfit.artifact import format as files

DECIDING = (files.CONFIG, files.SCHEMA, files.WEIGHTS, files.METRICS, files.CHECKSUMS)
HOSTILE = (
    None, True, -1, 0, 10**30, 1e308, 2**31, "", "x" * 100_000, "../../outside.json", "/etc/passwd", [], {}, [[]], ["a"] * 1000,
    {"a": {"b": {}}}, "\ud800", "\x00", "<script>", "float32", "__import__('os').mkdir('canary')",
)  # fmt: skip


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.canary),)


@dataclass
class Target:
    """What a mutation works on.

    Attributes:
        folder: The artifact, to be changed in place.
        outside: A folder beside it that nothing may be read from; `canary` is one that must not come to be.
        draw: The source of every choice.
    """

    folder: Path
    outside: Path
    draw: random.Random

    @property
    def canary(self) -> Path:
        return self.outside / "canary"

    def any_file(self) -> Path:
        """One of those that decide predictions."""
        base = self.folder / files.BASE
        return self.draw.choice(
            [self.folder / name for name in DECIDING] + [f for f in sorted(base.rglob("*")) if f.is_file()]
        )

    def json(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / name).read_text())

    def write(self, name: str, content: Any) -> None:
        file = self.folder / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())

    def rehash(self) -> None:
        """What an attacker does at the end."""
        files.write_checksums(self.folder)

    @property
    def standalone(self) -> bool:
        return (self.folder / files.BASE).is_dir()


Mutation = Callable[[Target], None]
DAMAGE: list[Mutation] = []
ATTACKS: list[Mutation] = []


def damage(mutation: Mutation) -> Mutation:
    DAMAGE.append(mutation)
    return mutation


def attack(mutation: Mutation) -> Mutation:
    ATTACKS.append(mutation)
    return mutation


@damage
def flipped_bits(target: Target) -> None:
    file = target.any_file()
    raw = bytearray(file.read_bytes())
    for _ in range(target.draw.choice([1, 1, 1, 5])):
        raw[target.draw.randrange(len(raw))] ^= 1 << target.draw.randrange(8)
    file.write_bytes(bytes(raw))


@damage
def another_byte(target: Target) -> None:
    file = target.draw.choice(
        [target.folder / files.CONFIG, target.folder / files.SCHEMA, target.folder / files.CHECKSUMS]
    )
    raw = bytearray(file.read_bytes())
    raw[target.draw.randrange(len(raw))] = target.draw.randrange(256)
    file.write_bytes(bytes(raw))


@damage
def cut_off(target: Target) -> None:
    file = target.any_file()
    raw = file.read_bytes()
    file.write_bytes(raw[: target.draw.randrange(len(raw))])


@damage
def added_to(target: Target) -> None:
    file = target.any_file()
    file.write_bytes(file.read_bytes() + target.draw.randbytes(target.draw.choice([1, 8, 1000])))


@damage
def gone(target: Target) -> None:
    target.any_file().unlink()


@damage
def exchanged(target: Target) -> None:
    one, other = target.any_file(), target.any_file()
    left, right = one.read_bytes(), other.read_bytes()
    one.write_bytes(right)
    other.write_bytes(left)


@damage
def a_link(target: Target) -> None:
    file = target.any_file()
    shutil.copy(file, target.outside / file.name)
    file.unlink()
    file.symlink_to(target.outside / file.name)


@damage
def no_plain_file(target: Target) -> None:
    file = target.any_file()
    file.unlink()
    (os.mkfifo if target.draw.random() < 0.5 else os.mkdir)(file)


@damage
def a_card_of_ones_own(target: Target) -> None:
    """Harmless: predictions are the same."""
    (target.folder / files.CARD).write_bytes(target.draw.randbytes(100))
    (target.folder / "notes.pkl").write_bytes(pickle.dumps(Bomb(target.canary)))


@damage
def swapped_tensors(target: Target) -> None:
    header, body = _split(target.folder / files.WEIGHTS)
    names = [name for name in header if name != "__metadata__"]
    one, other = target.draw.sample(names, 2)
    header[one], header[other] = header[other], header[one]
    _join(target.folder / files.WEIGHTS, header, body)


@attack
def tensors(target: Target) -> None:
    """Missing, extra, renamed, of another shape or type, as a header that fits the file."""
    file, header, body = _drawn_weights(target)
    name = target.draw.choice(sorted(header))
    what = target.draw.choice(["missing", "extra", "renamed", "flat", "type"])
    if what == "missing":
        begin, end = header.pop(name)["data_offsets"]
        body = body[:begin] + body[end:]
        for entry in header.values():
            entry["data_offsets"] = [place - (end - begin) * (place >= end) for place in entry["data_offsets"]]
    elif what == "extra":
        header["extra"] = {"dtype": "F32", "shape": [2], "data_offsets": [len(body), len(body) + 8]}
        body += bytes(8)
    elif what == "renamed":
        header["../" + name] = header.pop(name)
    elif what == "flat":
        header[name]["shape"] = [1, *header[name]["shape"]]
    else:
        header[name]["dtype"] = "I32"
    _join(file, header, body)
    target.rehash()


@attack
def headers(target: Target) -> None:
    file, header, body = _drawn_weights(target)
    entry = header[target.draw.choice(sorted(header))]
    what = target.draw.randrange(9)
    if what == 0:
        entry["shape"] = [1 << 40, 1 << 40]
    elif what == 1:
        entry["data_offsets"] = [0, 1 << 45]
    elif what == 2:
        entry["data_offsets"] = [-8, 0]
    elif what == 3:
        entry["dtype"] = target.draw.choice(["F4", "C64", "O", 3, None])
    elif what == 4:
        header["__metadata__"] = target.draw.choice([{"a": 1}, [[]], "x" * 10_000, {"__reduce__": "os.system"}])
    elif what == 5:
        entry["shape"] = target.draw.choice([None, "x", [1.5], [True], [[2]], [-1, -2]])
    elif what == 6:
        header = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(100_000)}
    _join(file, header, body)
    if what == 7:
        file.write_bytes(struct.pack("<Q", target.draw.choice([1 << 63, 1 << 40, (1 << 64) - 1, 10**8])) + b"{}")
    elif what == 8:
        nested = b"[" * 200_000
        file.write_bytes(struct.pack("<Q", len(nested)) + nested)
    target.rehash()


@attack
def hostile_values(target: Target) -> None:
    """A value somewhere in the JSON becomes another, or goes, or gets company."""
    base = [f"{files.BASE}/config.json", f"{files.BASE}/tokenizer_config.json"] if target.standalone else []
    name = target.draw.choice([files.CONFIG, files.CONFIG, files.SCHEMA, files.SCHEMA, files.METRICS, *base])
    content = target.json(name)
    place: Any = content
    while True:
        key = target.draw.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
        inner = place[key]
        if isinstance(inner, dict | list) and inner and target.draw.random() < 0.8:
            place = inner
            continue
        break
    what = target.draw.random()
    if what < 0.7:
        place[key] = target.draw.choice(HOSTILE)
    elif what < 0.85:
        place.pop(key)
    elif isinstance(place, dict):
        place[target.draw.choice(["__class__", "extra", "../x", ""])] = target.draw.choice(HOSTILE)
    target.write(name, content)
    target.rehash()


@attack
def hostile_json(target: Target) -> None:
    small = [files.CONFIG, files.SCHEMA, files.METRICS]
    name = target.draw.choice(small + ([f"{files.BASE}/config.json"] if target.standalone else []))
    good = (target.folder / name).read_bytes().strip()
    bad = [
        b"[" * 100_000, b'{"a":' * 50_000, b"", b"null", b"[]", b"\xff\xfe", good + good, good[:-1] + b',"a":NaN}',
        good[:-1] + b',"a":1e999}', good[:-1] + b',"settings":{}}', b'{"a":' + b"9" * 10_000 + b"}",
        b"[" + b"[]," * 1_000_000 + b"[]]", b'{"a":"' + b"x" * 30_000_000 + b'"}', good[:-1] + b',"a":"\\ud800"}',
        b'{"' + b'\\"' * 1_900_000 + b'":1}', b"\xef\xbb\xbf" + good, good.replace(b"{", b"{{", 1),
    ]  # fmt: skip
    target.write(name, target.draw.choice(bad))
    target.rehash()


@attack
def pickles(target: Target) -> None:
    bomb = pickle.dumps(Bomb(target.canary))
    what = target.draw.randrange(5)
    if what == 0:
        target.write(files.WEIGHTS, bomb)
    elif what == 1:
        with zipfile.ZipFile(target.folder / files.WEIGHTS, "w") as archive:
            archive.writestr("archive/data.pkl", bomb)
    elif what == 2:
        target.write(f"{files.BASE}/pytorch_model.bin", bomb)
        (target.folder / files.BASE / "model.safetensors").unlink(missing_ok=True)
    elif what == 3:
        target.write(f"{files.BASE}/model.safetensors", bomb)
    else:
        target.write(target.draw.choice([files.CONFIG, files.SCHEMA]), bomb)
    target.rehash()


@attack
def code(target: Target) -> None:
    """Python beside the weights, and settings that ask for it."""
    source = f"import os\nos.mkdir({str(target.canary)!r})\nclass Evil: pass\n".encode()
    for name in ("modeling_evil.py", "tokenization_evil.py", "__init__.py"):
        if target.draw.random() < 0.5:
            target.write(f"{files.BASE}/{name}", source)
    maps = {"AutoConfig": "modeling_evil.Evil", "AutoModel": "modeling_evil.Evil", "AutoTokenizer": ["a.Evil", None]}
    settings = target.draw.choice(
        [
            {"auto_map": maps}, {"auto_map": maps, "model_type": "evil"}, {"attn_implementation": "evil/kernel"},
            {"_attn_implementation": "evil/kernel"}, {"quantization_config": {"quant_method": "gptq", "bits": 4}},
            {"text_config": {"auto_map": maps}}, {"tokenizer_class": "Evil", "auto_map": maps}, {"trust_remote_code": True},
            {"tokenizer_file": str(target.outside / "outside.json")}, {"vocab_file": "../../outside.json"},
        ]
    )  # fmt: skip
    name = target.draw.choice(["config.json", "tokenizer_config.json"])
    present = target.standalone and (target.folder / files.BASE / name).is_file()
    target.write(f"{files.BASE}/{name}", {**(target.json(f"{files.BASE}/{name}") if present else {}), **settings})
    target.rehash()


@attack
def too_large(target: Target) -> None:
    """Settings and configs that would take all the memory there is."""
    many = target.draw.choice([10**4, 10**6, 2_000_000, 10**9, 10**18])
    if target.standalone and target.draw.random() < 0.6:
        config = target.json(f"{files.BASE}/config.json")
        keys = (
            "hidden_size",
            "num_hidden_layers",
            "vocab_size",
            "intermediate_size",
            "max_position_embeddings",
            "num_labels",
        )
        for key in target.draw.sample([*keys, "type_vocab_size"], target.draw.choice([1, 1, 2])):
            config[key] = many
        target.write(f"{files.BASE}/config.json", config)
    elif target.draw.random() < 0.5:
        config = target.json(files.CONFIG)
        config["settings"].update(
            {"optim.peft": target.draw.choice(["lora", "dora", "ia3_lora"]), "optim.lora.r": many}
        )
        target.write(files.CONFIG, config)
    elif target.draw.random() < 0.5:
        schema = target.json(files.SCHEMA)
        schema["label"].update(problem_type="multiclass", classes=list(range(150_000)))
        schema["schema"]["problem_type"] = "multiclass"
        target.write(files.SCHEMA, schema)
    else:
        config = target.json(files.CONFIG)
        config["settings"][
            target.draw.choice(["env.num_workers_inference", "env.batch_size", "env.per_gpu_batch_size"])
        ] = many
        target.write(files.CONFIG, config)
    target.rehash()


@attack
def ways_out(target: Target) -> None:
    """Names that lead elsewhere."""
    shutil.copy(target.folder / files.WEIGHTS, target.outside / "outside.safetensors")
    (target.outside / "outside.json").write_text("{}")
    what = target.draw.randrange(5)
    target.rehash()
    sums = target.folder / files.CHECKSUMS
    if what == 0:
        digest = hashlib.sha256((target.outside / "outside.json").read_bytes()).hexdigest()
        name = target.draw.choice(
            ["../outside/outside.json", str(target.outside / "outside.json"), "base/../../outside/outside.json"]
        )
        sums.write_text(f"{sums.read_text()}{digest}  {name}\n")
    elif what == 1:
        (target.folder / files.BASE / "model.safetensors").unlink(missing_ok=True)
        target.write(
            f"{files.BASE}/model.safetensors.index.json",
            {
                "weight_map": {
                    "a": target.draw.choice(
                        ["../../outside/outside.safetensors", str(target.outside / "outside.safetensors")]
                    )
                }
            },
        )
        target.rehash()
    elif what == 2:
        config = target.json(files.CONFIG)
        config["checkpoint"]["name"] = target.draw.choice(
            ["../outside", str(target.outside), "local://../outside", "~", "", "a/b/c"]
        )
        target.write(files.CONFIG, config)
        target.rehash()
    elif what == 3:
        shutil.rmtree(target.folder / files.BASE, ignore_errors=True)
        (target.folder / files.BASE).symlink_to(target.outside)
    else:
        target.write(f"{files.BASE}/adapter_config.json", {"base_model_name_or_path": str(target.outside)})
        target.rehash()


@attack
def tokenizers(target: Target) -> None:
    """What the tokenizer is built from, broken and hashed again."""
    name = f"{files.BASE}/tokenizer.json"
    if not target.standalone:
        return flipped_bits(target)
    raw = bytearray((target.folder / name).read_bytes())
    what = target.draw.randrange(5)
    if what == 0:
        for _ in range(10):
            raw[target.draw.randrange(len(raw))] = target.draw.randrange(256)
    elif what == 1:
        raw = raw[: target.draw.randrange(len(raw))]
    elif what == 2:
        raw = bytearray(b'{"a":' * 50_000)
    else:
        content = json.loads(raw)
        content[target.draw.choice(sorted(content))] = target.draw.choice(
            [None, [], {}, "x", 1, {"type": "x"}, {"type": "BPE"}]
        )
        raw = bytearray(json.dumps(content).encode())
    target.write(name, bytes(raw))
    target.rehash()


@attack
def other_formats(target: Target) -> None:
    config = target.json(files.CONFIG)
    config["format_version"] = target.draw.choice([0, 1, 3, -1, 10**20, "2", 2.0, True, None, [2]])
    if target.draw.random() < 0.5:
        config["files"] = target.draw.choice([{}, [], None, {files.WEIGHTS: 1}, {"../x": "0" * 64}])
    target.write(files.CONFIG, config)
    target.rehash()


def _drawn_weights(target: Target) -> tuple[Path, dict[str, Any], bytes]:
    """One of the artifact's safetensors files, its header without metadata, and what follows it."""
    weights = [target.folder / files.WEIGHTS, *sorted((target.folder / files.BASE).glob("*.safetensors"))]
    file = target.draw.choice(weights)
    header, body = _split(file)
    header.pop("__metadata__", None)
    return file, header, body


def _split(file: Path) -> tuple[dict[str, Any], bytes]:
    raw = file.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def _join(file: Path, header: dict[str, Any], body: bytes) -> None:
    content = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(content)) + content + body)
