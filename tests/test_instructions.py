"""What the compiler made of the kernels: no instruction of a higher level, and no vector spilled in a hot loop."""

import platform
import re
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest

BUILD = Path(__file__).parents[1] / "build"
ARCHIVES = sorted(BUILD.glob("*/libequibit_core.a"), key=lambda path: path.stat().st_mtime)

pytestmark = [
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the levels are those of x86"),
    pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump, of the GNU binutils"),
    pytest.mark.skipif(not ARCHIVES, reason="needs the build folder of an installation from this source tree"),
]

LEVELS = ("portable", "avx2", "avx512", "avx512_vnni", "avx512_icl")  # each has the instructions of those before it
# Mnemonics by the first level that may hold them; the encoding tells apart the levels up to avx512.
FIRST_LEVEL = {
    r"vpdp(bus|wss)ds?": "avx512_vnni",
    r"vpopcnt[bwdq]|vpshufbitqmb|vpermb|vperm[it]2b|vpmultishiftqb": "avx512_icl",
}
NO_LEVEL = (
    r"vpsh[lr]d\w+|vp(compress|expand)[bw]|vpmadd52\w+|v?gf2p8\w+|v?pclmul\w+|v?aes\w+|sha\w+|vpdp(bss|bsu|buu|wsu|wus|wuu)ds?|\w*bf16\w*"
    r"|v(add|sub|mul|div|fn?m(add|sub)\d*)[ps]h|vpconflict[dq]|vplzcnt[dq]|lzcnt|andn|bextr|pext|pdep|t?dp\w+ssd"
)
OF_ITS_OWN = {  # an instruction that shows that a level does what it is for
    "avx2": r"vpshufb .*%ymm",
    "avx512": r"vpternlog[dq] .*%zmm",
    "avx512_vnni": r"vpdpbusd .*%zmm",
    "avx512_icl": r"vpopcntq .*%zmm",
}
# Functions whose loops do the work, by the start of the source file's name; everything else of the library runs once a
# tile or less. (The sixteen registers of AVX2 do not hold the nine weights of a depthwise 3x3 kernel and all the rest.)
HOT = {
    "xnor": r"xnor_tile|gemv_xnor|RowTally",
    "table": r"",
    "vnni": r"",
    "depthwise_avx512": r"depthwise_maps<.*, 3, ",
}


@dataclass
class Function:
    name: str
    instructions: list[tuple[int, str, str]] = field(default_factory=list)  # address, first byte, text

    def innermost_loops(self):
        """The instructions from the target of a backward jump to the jump, where no other such range lies inside."""
        first = self.instructions[0][0] if self.instructions else 0
        ranges = set()
        for address, _, text in self.instructions:
            jump = re.match(r"j\w+\s+([0-9a-f]+)\b", text)
            if jump and first <= int(jump[1], 16) <= address:
                ranges.add((int(jump[1], 16), address))
        for low, high in ranges:
            if not any((low, high) != (a, b) and low <= a and b <= high for a, b in ranges):
                yield [text for address, _, text in self.instructions if low <= address <= high]


def disassemble(archive):
    """{source file: its functions}."""
    text = subprocess.run(["objdump", "-dC", archive], capture_output=True, text=True, check=True).stdout
    found = defaultdict(list)
    source = ""
    for line in text.splitlines():
        if member := re.match(r"(\w+)\.cpp\.o\w*:\s+file format", line):
            source = member[1]
        elif start := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            found[source].append(Function(start[1]))
        elif step := re.match(r"\s*([0-9a-f]+):\t([0-9a-f]{2}) [0-9a-f ]*\t(.*)", line):
            found[source][-1].instructions.append((int(step[1], 16), step[2], step[3]))
    return dict(found)


@pytest.fixture(scope="module")
def sources():
    return disassemble(ARCHIVES[-1])


def level_of(source):
    found = re.search(r"_(avx2|avx512|avx512_vnni|avx512_icl)$", source)
    return found[1] if found else "portable"


def instructions_of(sources, level):
    return [
        (source, function.name, first, text)
        for source, functions in sources.items()
        if level_of(source) == level
        for function in functions
        for _, first, text in function.instructions
    ]


def test_every_level_is_here(sources):
    assert {level_of(source) for source in sources} == set(LEVELS)
    expected = {path.stem for path in (BUILD.parent / "cpp" / "src").rglob("*.cpp") if not path.stem.endswith("_neon")}
    assert set(sources) == expected, "the build folder is not that of this source tree"


@pytest.mark.parametrize("level", LEVELS)
def test_no_instruction_of_a_higher_level(sources, level):
    higher = LEVELS[LEVELS.index(level) + 1 :]
    forbidden = "|".join([NO_LEVEL, *(names for names, first in FIRST_LEVEL.items() if first in higher)])
    # The first byte of an instruction with vectors of AVX is c4 or c5, of AVX-512 it is 62.
    encodings = {"portable": ("c4", "c5", "62"), "avx2": ("62",)}.get(level, ())
    instructions = instructions_of(sources, level)
    assert len(instructions) > 100
    wrong = [
        (source, function, text)
        for source, function, first, text in instructions
        if first in encodings
        or re.match(rf"({forbidden})\s", text)
        or (level == "portable" and text.startswith("popcnt"))
    ]
    assert not wrong, f"{len(wrong)} of {len(instructions)}, such as {wrong[:3]}"


@pytest.mark.parametrize("level", OF_ITS_OWN)
def test_a_level_uses_what_it_is_named_for(sources, level):
    assert any(re.match(OF_ITS_OWN[level], re.sub(r"\s+", " ", text)) for *_, text in instructions_of(sources, level))


def test_no_function_of_a_level_can_stand_in_for_another(sources):
    """A weak symbol, such as an inline function's, is merged with those of other files, perhaps of a lower level."""
    listing = subprocess.run(["nm", "-CA", ARCHIVES[-1]], capture_output=True, text=True, check=True).stdout
    defined = re.findall(r"(\w+)\.cpp\.o\w*:[0-9a-f]+ ([A-Za-z]) (.*)", listing)
    assert {source for source, *_ in defined} == set(sources)
    weak = [(source, name) for source, kind, name in defined if kind in "WVu" and level_of(source) != "portable"]
    assert not weak


def hot_functions(source):
    """The pattern of their names, or None."""
    return next((names for start, names in HOT.items() if source.startswith(start)), None)


def hot_loops(sources):
    for source, functions in sources.items():
        hot = hot_functions(source)
        if hot is None or level_of(source) == "portable":
            continue
        for function in functions:
            if re.search(hot, function.name):
                for loop in function.innermost_loops():
                    yield source, function.name, loop


def test_hot_loops_keep_their_vectors_in_registers(sources):
    seen = defaultdict(int)
    for source, name, loop in hot_loops(sources):
        spilled = [text for text in loop if re.search(r"[xyz]mm", text) and re.search(r"\(%r[sb]p[,)]", text)]
        vectors = sum(1 for text in loop if re.search(r"[yz]mm", text))
        assert not spilled, f"{source}: a loop of {name} with {vectors} vector instructions spills: {spilled}"
        seen[source] += vectors > 20
    assert set(seen) == {
        source for source in sources if hot_functions(source) is not None and level_of(source) != "portable"
    }
    assert all(seen.values()), f"no loop at work was found in some of {dict(seen)}"
