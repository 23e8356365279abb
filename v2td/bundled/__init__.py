"""What ships with v2td to try it on: a small real Whisper model and recordings of known text.

In: the name of a size. Out: the path of a CTranslate2 model folder or of a GGML file, and the recordings with their
true text and times. It blocks on the disk, and for some seconds of CPU the first time a size is asked for; everybody
may use it.
See data/NOTICE for whose work the vocabulary and the voices are.
"""

from v2td.bundled.model import SIZES, Size, ggml_file, model_folder
from v2td.bundled.recordings import Recording, SpokenSegment, recordings

__all__ = ["SIZES", "Recording", "Size", "SpokenSegment", "ggml_file", "model_folder", "recordings"]
