"""From a trained model of a framework to a checked ONNX file.

Frameworks fight over dependencies, so none is loaded here: an exporter (`frameworks`) runs as a
child in an interpreter of its own (`toolchains`, `child`), and what it wrote is believed only
after onnxruntime has answered the framework's own examples alike (`prove`). `importing` puts
the steps together; `job` is the language that both ends speak.
"""
