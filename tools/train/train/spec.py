"""The numbers that the exported graphs, the trainer and the daemon agree on."""

WIDTH, HEIGHT = 512, 288      # canvas the source frame is letterboxed into
STRIDE = 8                    # of the map that carries objectness, boxes and region features
GRID_W, GRID_H = WIDTH // STRIDE, HEIGHT // STRIDE
REGIONS = 64                  # proposals offered per frame
TOKENS = 16                   # words per query, padded with 0
DIM = 128                     # width of every token: words, regions, and what later heads write
HEADS = 4
OPSET = 17

PAD, UNK = 0, 1
