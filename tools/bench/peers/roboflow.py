"""Roboflow's InferencePipeline with custom logic: it reads, buffers and schedules; the logic is the ONNX file."""

import os

# Only the pipeline is used: without these, importing it loads every model family it knows, and asks the network.
os.environ.update(
    CORE_MODELS_ENABLED="False", DISABLE_VERSION_CHECK="True", TELEMETRY_OPT_OUT="True", METRICS_ENABLED="False"
)

from inference import InferencePipeline  # noqa: E402

from common import Model, Publisher, arguments, read_mark  # noqa: E402


def main():
    args = arguments()
    model, publisher = Model(args.onnx, args.threads), Publisher(args.broker)

    def logic(frames):
        return [model.boxes(model.run(model.prepare(frame.image))) for frame in frames]

    def sink(predictions, frames):
        # One stream gives single values, several give lists with gaps.
        if not isinstance(frames, list):
            predictions, frames = [predictions], [frames]
        for boxes, frame in zip(predictions, frames):
            if frame is not None:
                publisher.send(frame.source_id or 0, read_mark(frame.image), boxes)

    pipeline = InferencePipeline.init_with_custom_logic(
        video_reference=args.urls, on_video_frame=logic, on_prediction=sink
    )
    pipeline.start(use_main_thread=True)


main()
