"""The numbers that the exported graphs, the trainer and the daemon agree on."""

WIDTH, HEIGHT = 512, 288      # canvas the source frame is letterboxed into, in training and mostly
SHAPES = ((576, 256), (448, 320), (416, 352), (384, 384), (352, 416), (320, 448), (288, 512))  # others, for pictures that fill them better: whole cells of 32, as many pixels
STRIDES = (8, 16, 32, 64)     # of the maps that carry objectness, boxes and classes
GRIDS = tuple((-(-HEIGHT // s), -(-WIDTH // s)) for s in STRIDES)  # rows, columns
CELLS = sum(h * w for h, w in GRIDS)
MAPS = 64                     # channels of those maps
REGIONS = 64                  # proposals offered per frame
TOKENS = 16                   # words per query, padded with 0
DIM = 128                     # width of every token: words, regions, and what later heads write
HEADS = 4
OPSET = 17

PAD, UNK = 0, 1

BINS = 256                    # location tokens along either side of the frame
DIGITS = 3                    # a coordinate as text: thousandths of the frame
ANSWERS = ("<pad>", "<coords>", "<bins>", "<box>", "<end>", *"0123456789", *(f"<bin_{i}>" for i in range(BINS)))
ANSWER = {name: i for i, name in enumerate(ANSWERS)}
