from efficientnet_advprop.testing import tiny_keras

IMAGES = tiny_keras.IMAGES
LABELS = tiny_keras.LABELS


def test_the_first_lines_of_fit_say_what_has_a_twin(keras, capsys):
  model = tiny_keras.compiled(keras)
  model.fit(IMAGES, LABELS)
  lines = capsys.readouterr().out.splitlines()
  assert lines[0] == (
    'Method advprop, images in (0, 255), attack ifgsm: epsilon 8 of 255, here'
    ' 8; steps 2, target label'
  )
  text = '\n'.join(lines)
  assert '2 norms with a twin for each domain: batch_normalization' in text
  assert ('jit_compile is off' in text) == hasattr(keras, 'ops')
  model.fit(IMAGES, LABELS)
  assert 'Method' not in capsys.readouterr().out
