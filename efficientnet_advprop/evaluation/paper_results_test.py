from efficientnet_advprop.evaluation import paper_results

_RESULTS = paper_results.results()


def _numbers(table, row, test='main'):
  return [
    r.published
    for r in _RESULTS
    if (r.table, r.row, r.test) == (table, row, test)
  ]


def _differences(table, one, other, test='main', other_test=None):
  pairs = zip(
    _numbers(table, one, test), _numbers(table, other, other_test or test)
  )
  return [round(a - b, 1) for a, b in pairs]


def test_the_numbers_agree_with_the_differences_that_the_paper_prints():
  both = 'AdvProp', 'Vanilla training'
  # The ResNet-50 follows the EfficientNets and has no AdvProp.
  assert _differences('Table 1', *both, 'imagenet_c') == [
    *(-4.5, -4.9, -2.7, -5.1, -2.1, -6.1, -7.0, -6.5)
  ]
  assert _differences('Table 1', *both, 'imagenet_a') == [
    *(0.4, 1.1, 1.0, 0.1, 1.5, 5.0, 6.1, 7.0)
  ]
  # The paper prints +1.7 for B4, where its numbers differ by 2.3.
  assert _differences('Table 1', *both, 'stylized_imagenet') == [
    *(1.5, 1.7, 1.0, 3.6, 2.3, 3.6, 5.0, 4.8)
  ]
  gaps = _differences(
    'Table 3', 'Main norms', 'Auxiliary norms', 'main', 'auxiliary'
  )
  assert gaps == [3.4, 3.3, 3.3, 3.2, 2.8, 2.2, 2.1, 1.9]
  inception = 'Inception preprocessing'
  assert _differences('Table 6', 'with both', inception) == [
    *(0.3, 0.4, 0.5, 0.8, 0.7, 1.1, 1.1, 1.2)
  ]
  assert _differences('Table 8', *both) == [0.4, 0.6, 0.8, 0.8]
  assert _differences('Figure 2', 'Fine-tuning', 'Vanilla training') == [
    *(-0.2, 0.3)
  ]


def test_every_table_is_there():
  tables = {result.table for result in _RESULTS}
  expected = {f'Table {number}' for number in range(1, 9)}
  expected |= {f'Figure {number}' for number in (2, 4, 5)}
  assert tables == expected | {'Section 5.3', 'Section 5.4'}
  for table, row in {(r.table, r.row) for r in _RESULTS}:
    if table in ('Table 2', 'Table 5', 'Table 6', 'Figure 4', 'Figure 5'):
      assert len(_numbers(table, row)) == 8, (table, row)
