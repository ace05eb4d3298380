"""Packaging of txraft, with the twistd plugin beside the package."""

from pathlib import Path

from setuptools import find_packages, setup

LMDB = ["lmdb>=2.0"]
TEST = [
    "pytest>=8",
    "hypothesis>=6.100",
    *LMDB,
    "trustme>=1.1",
    "uvloop>=0.21; sys_platform != 'win32'",
]
DOCS = ["sphinx>=8.2", "furo>=2025.12"]
BENCHMARKS = ["pysyncobj==0.3.17", "matplotlib>=3.9"]

setup(
    name="txraft",
    version="0.1.0",
    description="Raft consensus for Twisted, wire-compatible with hashicorp/raft",
    long_description=Path(__file__).with_name("README.rst").read_text(),
    long_description_content_type="text/x-rst",
    license="MIT",
    packages=[
        *find_packages(include=["txraft", "txraft.*"]),
        "twisted.plugins",
    ],
    package_data={"txraft": ["py.typed"], "txraft.http": ["openapi.yaml"]},
    zip_safe=False,
    python_requires=">=3.11",
    install_requires=[
        "twisted>=24.11",
        "msgpack>=1.0.8",
        "treq>=24.9.1",
        "pyopenssl>=24.3",
        "cryptography>=43",
        "service-identity>=24.1",
        "pyyaml>=6.0.1",
        "fastcrc>=0.4.0",
        "caio>=0.12.1; sys_platform == 'linux'",
        "click>=8.2",
        "prometheus-client>=0.20",
    ],
    entry_points={"console_scripts": ["txraft = txraft.cli.app:main"]},
    extras_require={
        "lmdb": LMDB,
        "test": TEST,
        "docs": DOCS,
        "benchmarks": BENCHMARKS,
        "dev": [
            *TEST,
            *DOCS,
            "ruff==0.17.6",
            "mypy==2.4.1",
            "mypy-zope==1.0.17",
            "types-PyYAML>=6.0.12",
            "towncrier>=24.8",
            "coverage>=7.10",
            "nox>=2024.10",
        ],
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Framework :: Twisted",
        "Intended Audience :: Developers",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Database",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
)
