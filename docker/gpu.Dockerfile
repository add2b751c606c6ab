# The application on NVIDIA GPUs; docs/gpu.md has the commands.
#
#   docker build -f docker/gpu.Dockerfile -t advprop:gpu .
#
# The image holds CUDA 12.2 and cuDNN 8.9, for which TensorFlow 2.15 is built. The
# requirements install 2.15.1, of which there is no official image; it is built for
# the same libraries.
FROM tensorflow/tensorflow:2.15.0-gpu

# An environment of its own: pip cannot replace the packages of the image that
# come from its system.
RUN python3 -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH

WORKDIR /advprop
# Before the code, so that a change to the code does not install all again.
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY . .

ENTRYPOINT ["python", "main.py"]
