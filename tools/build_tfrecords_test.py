"""The flags of the converter; tfrecords/ holds the tests of its work."""

import pytest

from efficientnet_advprop.app import program
from tools import build_tfrecords


@pytest.mark.parametrize(
  'given, problem',
  [
    (['--input=train=x'], '--output_dir is needed'),
    (['--output_dir=x'], 'either --input or --verify'),
    (['--output_dir=x', '--verify', '--input=train=x'], 'either --input or'),
    (['--output_dir=x', '--input=train'], "got 'train'; allowed: <split>="),
    (['--output_dir=x', '--input=a=b', '--input=a=c'], "'a' is given twice"),
    (['--output_dir=x', '--input=a=b', '--num_shards=a=0'], "got '0'"),
    (['--output_dir=x', '--input=a=b', '--num_shards=b=1'], "no split 'b'"),
    (['--output_dir=x', '--verify', '--num_workers=0'], 'num_workers'),
    (['--output_dir=x', '--verify', 'more'], "'more' is not a flag"),
  ],
)
def test_wrong_flags_end_in_one_line(given, problem, capsys):
  values = build_tfrecords._FLAGS
  values.unparse_flags()
  for name in values:
    values[name].unparse()
  parse = program.parser('build_tfrecords', values, build_tfrecords._check)
  with pytest.raises(SystemExit) as caught:
    parse(['build_tfrecords', *given])
  assert caught.value.code == 2
  error = capsys.readouterr().err
  assert problem in error and error.count('\n') == 1
