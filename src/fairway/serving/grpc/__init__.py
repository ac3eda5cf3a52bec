"""gRPC: Open Inference Protocol V2, TensorFlow Serving, health and reflection, on a port of their own.

frames, head, stream, connection   HTTP/2 as far as gRPC needs it, on the worker's own event loop
method, service, calls             a call from its path to its answer; predictions of one loop turn together
wire, messages                     ModelInfer read and written by hand; everything else by protobuf
tensors, infer, models             Open Inference Protocol V2
tensorflow, tensorflow_models      TensorFlow Serving
health, reflection                 what probes and tools ask for
server                             the listening socket, TLS, draining

Why there is no grpcio here is in docs/adr (an HTTP/2 of our own).
"""
