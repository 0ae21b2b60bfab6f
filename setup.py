"""Package metadata comes from settings.ini."""

from configparser import ConfigParser

from setuptools import setup

ini = ConfigParser(delimiters=["="])
ini.read("settings.ini", encoding="utf-8")
meta = ini["DEFAULT"]
extras = {key.removesuffix("_requirements"): meta[key].split() for key in meta if key.endswith("_requirements")}
setup(
    name=meta["lib_name"],
    version=meta["version"],
    description=meta["description"],
    keywords=meta["keywords"].split(),
    author=meta["author"],
    license=meta["license"],
    python_requires=">=" + meta["min_python"],
    install_requires=meta["requirements"].split(),
    extras_require=extras,
)
