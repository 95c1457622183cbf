"""Two messages of TensorFlow Serving that its Python package leaves out, built from their published definitions.

In the server's source `BatchingParameters` stands in servables/tensorflow/session_bundle_config.proto and
`MonitoringConfig` in config/monitoring_config.proto; names, numbers and types are theirs.
"""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, wrappers_pb2

_Field = descriptor_pb2.FieldDescriptorProto
_INT64 = ".google.protobuf.Int64Value"


def _message(file, name, fields):
    message = file.message_type.add(name=name)
    for number, (field, kind, repeated) in enumerate(fields, 1):
        added = message.field.add(name=field, number=number)
        added.label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
        if isinstance(kind, str):
            added.type, added.type_name = _Field.TYPE_MESSAGE, kind
        else:
            added.type = kind


_file = descriptor_pb2.FileDescriptorProto(
    name="serving_definitions_of_the_tests.proto", package="tensorflow.serving", syntax="proto3"
)
_file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
_message(
    _file,
    "BatchingParameters",
    [
        ("max_batch_size", _INT64, False),
        ("batch_timeout_micros", _INT64, False),
        ("max_enqueued_batches", _INT64, False),
        ("num_batch_threads", _INT64, False),
        ("thread_pool_name", ".google.protobuf.StringValue", False),
        ("allowed_batch_sizes", _Field.TYPE_INT64, True),
        ("pad_variable_length_inputs", _Field.TYPE_BOOL, False),
    ],
)
_message(_file, "PrometheusConfig", [("enable", _Field.TYPE_BOOL, False), ("path", _Field.TYPE_STRING, False)])
_message(_file, "MonitoringConfig", [("prometheus_config", ".tensorflow.serving.PrometheusConfig", False)])
_pool = descriptor_pool.Default()
_pool.Add(_file) if hasattr(_pool, "Add") else _pool.AddSerializedFile(_file.SerializeToString())


def _class(name):
    return message_factory.GetMessageClass(_pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))


BatchingParameters = _class("BatchingParameters")
MonitoringConfig = _class("MonitoringConfig")
