import pytest

from efficientnet_advprop.testing import pages

_PAGE = """# One

words
```sh
# a comment
```
## Two
```
plain
```
"""


@pytest.fixture(name='page')
def _page(tmp_path):
  path = tmp_path / 'page.md'
  path.write_text(_PAGE)
  return path


def test_blocks_have_line_language_text_and_heading(page):
  assert pages.blocks(page) == [
    pages.Block(page, 4, 'sh', '# a comment\n', '# One'),
    pages.Block(page, 8, '', 'plain\n', '## Two'),
  ]


def test_a_block_without_an_end_is_told(page):
  page.write_text(_PAGE[:-4])
  with pytest.raises(AssertionError, match='the block of line 8 has no end'):
    pages.blocks(page)


def test_prose_is_what_is_in_no_block(page):
  numbered = list(pages.prose(page))
  assert numbered == [(1, '# One'), (2, ''), (3, 'words'), (7, '## Two')]


def test_the_pages_of_the_project_are_found():
  assert {'README.md', 'docs/data.md', 'docs/results/README.md'} <= set(
    pages.CURRENT
  )


def test_failures_are_told_line_by_line():
  pages.tell([])
  with pytest.raises(AssertionError, match='a: wrong\nb: wrong'):
    pages.tell(iter(['a: wrong', 'b: wrong']))
