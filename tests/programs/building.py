"""A build in C with make -j: what is made runs, nothing is made twice, and one header remakes what includes it."""

from __future__ import annotations

from pathlib import Path

from tests.programs.place import Place, needs, run

MODULES = 60
HEADERS = 12
_MAKEFILE = """
SOURCES := $(wildcard source/*/*.c)
OBJECTS := $(patsubst source/%.c,build/%.o,$(SOURCES))
program: build/library.a build/main.o
\tgcc -o $@ build/main.o build/library.a
build/library.a: $(OBJECTS)
\trm -f $@ && ar rcs $@ $^
build/main.o: main.c
\tgcc -Iinclude -MMD -MP -c -o $@ $<
build/%.o: source/%.c
\t@mkdir -p $(@D)
\tgcc -Iinclude -MMD -MP -c -o $@ $<
-include $(OBJECTS:.o=.d) build/main.d
"""


def check_build(place: Place) -> None:
    """make -j of a generated C project; then make that has nothing to do, and make after one header was touched."""
    needs("gcc", "gcc")
    needs("make", "make")
    modules = place.times(MODULES)
    project = place.folder / "project"
    wanted, users = _generate(place, project, modules)
    run("make", "-j4", cwd=project)
    place.remounted()
    assert int(run(place.other_view / "project" / "program")) == wanted
    run("make", "--question", cwd=project)
    run("touch", project / "include" / "h0.h")
    made = run("make", "-j4", cwd=project).splitlines()
    assert sum(" -c " in line for line in made) == users, "what one header remakes"
    run("make", "--question", cwd=place.other_view / "project")
    assert int(run(project / "program")) == wanted


def _generate(place: Place, project: Path, modules: int) -> tuple[int, int]:
    """Writes the sources: (what the program prints, how many sources include the first header)."""
    chance = place.random()
    (project / "include").mkdir(parents=True)
    (project / "build").mkdir()
    (project / "Makefile").write_text(_MAKEFILE)
    values = [chance.randrange(1000) for _ in range(HEADERS)]
    for number, value in enumerate(values):
        filler = "".join(f"static inline int h{number}_{n}(int x) {{ return x + {n}; }}\n" for n in range(50))
        text = f"#pragma once\n#include <stdio.h>\n#define H{number} {value}\n{filler}"
        (project / "include" / f"h{number}.h").write_text(text)
    total = users = 0
    for module in range(modules):
        used = chance.sample(range(HEADERS), 3)
        users += 0 in used
        total += sum(values[n] for n in used)
        folder = project / "source" / f"s{module % 8}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"m{module}.c").write_text(
            "".join(f'#include "h{n}.h"\n' for n in used)
            + f"int m{module}(void) {{ return {' + '.join(f'H{n}' for n in used)}; }}\n"
        )
    (project / "main.c").write_text(
        "#include <stdio.h>\n"
        + "".join(f"int m{n}(void);\n" for n in range(modules))
        + f'int main(void) {{ printf("%d\\n", {" + ".join(f"m{n}()" for n in range(modules))}); return 0; }}\n'
    )
    return total, users
