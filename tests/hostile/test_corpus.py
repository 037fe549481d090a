"""Every case of the corpus comes to what it states: refused by name, or this very tree."""

from __future__ import annotations

import re

import corpus_other
import corpus_tar
import pytest
from fields import Field, field_of_many
from trees import described, overlay_attributes

from guntainer import errors

CASES = {**corpus_tar.CASES, **corpus_other.CASES}


def test_the_corpus_is_large() -> None:
    assert len(CASES) == len(corpus_tar.CASES) + len(corpus_other.CASES) >= 450


@pytest.mark.parametrize("name", CASES)
@pytest.mark.root
def test_case(field_of_many: Field, name: str) -> None:
    field = field_of_many
    case = CASES[name]
    if isinstance(case.outcome, str):
        with pytest.raises(errors.RootfsError) as caught:
            field.unpack(case.data, layer=case.layer)
        assert case.outcome and re.search(case.outcome, str(caught.value))
        return
    tree = field.unpack(case.data, layer=case.layer)
    assert overlay_attributes(tree) == []
    assert described(tree, case.outcome) == case.outcome
