"""A log that a release without levels has written, and the state it made of it.

The log holds 151 commands of versions 1 and 2, drawn at random; the snapshot was taken
after the last of them. Neither is ever made anew by the code at hand.
"""

from __future__ import annotations

import zlib
from base64 import b64decode

import msgpack

_CAPTURED = (
    "eNqVWE1v20YQXVIWJdty/G3HSZXSBtIYaFKLpC1ZKZCmzSWHHIq01xbgZy3EkQJLMWQgCAo0QHIqbMqW"
    "00shuwmQ3Hvp1d7e1B9gID+gP6O7O7vkUlQOvdDkkjv7ZubNm5EPP6BjPNVRRw66uR5Wr19Hi6dNA186"
    "UvOnrpnB2Y6intjiz+iRopyev8cI8T0ZsqhsI3TatPAs22PM4DHy1R/2mkM/m4PFAh7nW9V2G8l27hE7"
    "R90C+d7F6q6FUK87fuKQW5Pegh1115AfSuwjaQcHM0L2KU8BDD2OYMu06XHswZEeOBAl8sKJvBiDjewt"
    "eGQWE4u5jqodnDZNvARvs6lQmHgO8DC8FNGbnxp1H09CmJl3DPYY4JLOMvJ4rKPmDkK6dTQ+ax7OmsMF"
    "iK0LcZyBk9kCnG3g2ddqljjypm4/9t/UG56PFITzzOiJsyQSMpkMSiJ34CkSeXTldDvROeuwZQl/Tl51"
    "uhp5hZRir5vnW+YJiG7+LfFjzcPqw4dogob3E3BE4zBNCSYS/oyy9Lx7h25Q1z8la2E3x9aAH4owypiA"
    "L4PJSTx5qGRO6+a7rVbrye21tTa+KmI6E+XDjRhSZHYFp4B4cAizOgV7J0QOrI8klXsfQWKGCicRT2UG"
    "4wlRGRD1NPt4HqZZ7CkahXw2/GAOcIwAVFT2bp6F1IhD+k/mXwUlGT0s6qPABIUXB5xDPo6qVMHXRCTn"
    "B9lFzqD0ELg5GBd/zepaowfzrEFwo0p2B6JuiaoWxc9FiKSAqY+TCrUBobYHrbL8LQqeXyJeiC1Me4gx"
    "/nybGDzs5pIGc8lUSmJUkMGlKWXg23BmERvMsJJy3gSLtiBHLroVkXdZ5LnwLMZi4C5xtmSpzPyApul5"
    "QHgjJvwl4TTX6wlhlPJNSZCKV838ECNddfS05iEXjzyxd1r8S2M0/eVkhAipOq1V3jYWRMa+AXGXnB8q"
    "6IaIrjskMPz4hXR5Q+sQWU9RIMoXvEmWpCvymK4IRdDZnIjpzAszI2m2iCEhaCoy8wJ0Uq9ngTQsB1Eh"
    "Qx8x1FQXM4d/PztY5rSGi2AkK8SCk1gY4iJm8JhpCQVNlGYiDYWYqoqkjbegEAcDH8c6UULci0K0yOLO"
    "AY9zwBkBmAthKtmJhh65k/psmllLyAiwNM4/vsngJ9ihxd5JAmCKwowGF85rEA5NnkcKAx1ADo483eAr"
    "gjQAVePtknl9H3h3BX8FaZJlEtSEFZEW3yppjqecZq1nMpZBEAMukNqAQCr4nqA6eClXi5RZM+m0dD7z"
    "UiOBolEb8CgnqWmELUoXpELKHddKSXAz0J34DLLJEA6gKMiAtfjAcSklw6ekqpgkSly/nWTwjdii1BtK"
    "Uq+aFsobTQ2QiFjzo8ikNd5ZxXlgOem4fHZRhvht8i5sDnZ6zs6hAnFZzLIprZqGNwUxJNpTQscXhcUb"
    "rGJiNkXM5GIdsSyaRS6LgTVVoYkZKJp756TmpAhIRYgH+yExrN9KPRMNnUxITK6noEuaFrNLPp1jz6Wx"
    "rzJjecjFW/UaAQEkeP5cUYH/SClQaFfZdJkFdAvqHB2GWaNEWg+XB+mVk+AlKywxPq6KsMBMDKK1uoqW"
    "CBdY31CXl9G1eI40pxLz/JKgd7rRDBNhQ1gpSGPIjGh6Wjo6U0LSIxbIzTKeu/7OzB6h9632jh20bj3a"
    "VfvH/VevBcp2fx/1Xotd/Z/7XfoYRaH/S/9XusBz1X/Rf8HfMxb0X/Zfol5HlXHRp5juv40ku/0ZWl6m"
    "a0Zi7dkzupYk0znqv+q/OtSIi+gDmglnsHIeFuglTy+T9LKEvwv3w45y8YX7dGfHr7f0xw2vFuzptbrn"
    "t3WrpDcC/ZG/p68QwCt6ranXGy3dNM466l98mQRoRfcafrN+o6X77VqzdRZOUNvT9DJGL0X8Wdg5Zmy6"
    "cwf1juGnNLuN6rJaRb39cJR+vkAvGXpR8bfh/kEHXdwP7Nq27+mthv60vt1wHwEoZ+Wmzp5q7PQtf9u7"
    "qTd2KE56rzt7uk0Ab/k7etNvNmuN+lmYxd+DzQfDbYJH/9/uOL7K7P5Zq+/a2zVPvNFXmtbKeahRf4hS"
    "hAfH/H8NW3sKSe1+OEfe0CyZ6Hfwukgv2Y+bM4k5uonYzBALkMlFepmPwscycAV/GR4di4ZNKhJy8OMW"
    "3NGSZfcCEFsXd/vAlRy9TFGIOTJkuwcwZIeZiYu7VbO6XvGsDcvz3aptVjfWnU2zXPWDoFKuuFYpsCw3"
    "CGzHI3/LwYZXLZlWxXft9UrJN/2qc3G37JecErmzgs3NauB4lfVSdcPbMG27atqb6+VyxaiYXtkzy5tW"
    "YJmB75jOprdhOYHvrhPL/wEAlUWA"
)

LOG: list[bytes]
SNAPSHOT: bytes
ANSWERS: str
"""The SHA-256 of the answers to all commands, as text, a line each."""
DIGEST: str
LOG, SNAPSHOT, ANSWERS, DIGEST = msgpack.unpackb(zlib.decompress(b64decode(_CAPTURED)))
