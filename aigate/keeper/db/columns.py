"""The two kinds of column that most are. What may be NULL is spelt out where it stands."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Text


def text_column(name: str, **options: object) -> Column:
    return Column(name, Text, nullable=False, **options)


def integer_column(name: str, **options: object) -> Column:
    return Column(name, BigInteger, nullable=False, **options)
