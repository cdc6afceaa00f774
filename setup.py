"""Ship configs/ and tools/, which are at the top of the source tree, inside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithTools(build_py):
    """Build the package, then copy the two folders into it.

    An editable installation needs no copy: nlnet/cli/choices.py finds the folders of the checkout.
    """

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for folder in ("configs", "tools"):
            target = Path(self.build_lib) / "nlnet" / folder
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree(folder, target, ignore=shutil.ignore_patterns("__pycache__"))


setup(cmdclass={"build_py": BuildWithTools})
