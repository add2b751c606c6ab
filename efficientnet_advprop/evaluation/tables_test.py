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
