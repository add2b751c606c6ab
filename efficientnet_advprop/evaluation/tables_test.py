from efficientnet_advprop.evaluation import tables


def test_cells_align_under_their_header():
  text = tables.format_table(('name', 'x'), [('a', '1.00'), ('longer', '10')])
  assert text.splitlines() == [
    'name       x',
    '------  ----',
    'a       1.00',
    'longer    10',
  ]


def test_results_are_percentages():
  result = dict(
    domain='main', top_1_accuracy=0.776, top_5_accuracy=0.9333, num_examples=3
  )
  row = tables.format_results({'clean': result}).splitlines()[-1]
  assert row.split() == ['clean', 'main', '77.60', '93.33', '3']
  # Of five classes or fewer, top-5 is always 100%.
  assert tables.shows_top_5(6) and not tables.shows_top_5(5)
  text = tables.format_results({'clean': result}, with_top_5=False)
  assert text.splitlines()[-1].split() == ['clean', 'main', '77.60', '3']
  assert 'top-5' not in text


def test_a_second_table_tells_the_shape_bias():
  plain = dict(
    domain='main', top_1_accuracy=0.5, top_5_accuracy=1, num_examples=9
  )
  biased = dict(
    plain, cue='texture', num_conflicts=8, shape_accuracy=0.125,
    cue_accuracy=0.375, shape_bias=0.25,
  )  # fmt: skip
  unknown = dict(biased, shape_bias=None)
  results = {'clean': plain, 'stylized': biased, 'other': unknown}
  first, second = tables.format_results(results).split('\n\n')
  assert len(first.splitlines()) == 5
  rows = [line.split() for line in second.splitlines()[2:]]
  assert rows == [
    ['stylized', 'texture', '12.50', '37.50', '25.00', '8'],
    ['other', 'texture', '12.50', '37.50', '-', '8'],
  ]
