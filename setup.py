"""Maps the six rooms of this checkout to one import name: site-packages gains only `frontload`."""

from setuptools import find_packages, setup

ROOMS = ("recipes", "data_tools", "megatron_ext", "eval", "rl", "launch")

setup(
    package_dir={f"frontload.{room}": room for room in ROOMS},
    packages=[
        f"frontload.{package}"
        for room in ROOMS
        for package in (room, *(f"{room}.{sub}" for sub in find_packages(room)))
    ],
    include_package_data=False,
    package_data={
        "frontload.recipes": ["**/*.yaml", "**/*.jinja", "**/*.json"],
        "frontload.eval": ["**/*.jinja", "**/*.css", "**/*.js", "**/*.txt"],
    },
)
