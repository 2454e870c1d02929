"""A loop as one writes it by hand: OpenCV reads, the newest picture of each stream goes through ONNX Runtime in turn."""

import threading

import cv2

from common import Model, Publisher, arguments, read_mark


class Camera(threading.Thread):
    """Keeps a stream's newest picture."""

    def __init__(self, url, ready):
        super().__init__(daemon=True)
        self.capture, self.ready, self.newest = cv2.VideoCapture(url, cv2.CAP_FFMPEG), ready, None

    def run(self):
        while True:
            read, picture = self.capture.read()
            if not read:
                return
            with self.ready:
                self.newest = picture
                self.ready.notify()


def main():
    args = arguments()
    model, publisher, ready = Model(args.onnx, args.threads), Publisher(args.broker), threading.Condition()
    cameras = [Camera(url, ready) for url in args.urls]
    for camera in cameras:
        camera.start()
    while True:
        with ready:
            ready.wait_for(lambda: any(camera.newest is not None for camera in cameras))
        for stream, camera in enumerate(cameras):
            with ready:
                picture, camera.newest = camera.newest, None
            if picture is not None:
                outputs = model.run(model.prepare(picture))
                publisher.send(stream, read_mark(picture), model.boxes(outputs))


main()
