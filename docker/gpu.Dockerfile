# The application on NVIDIA GPUs; docs/gpu.md has the commands.
#
#   docker build -f docker/gpu.Dockerfile -t advprop:gpu .
#
# The image holds CUDA 12.2 and cuDNN 8.9, for which TensorFlow 2.15 is built. The
# requirements put 2.15.1 in the place of its 2.15.0, for which the same libraries
# are right; there is no official image of 2.15.1.
FROM tensorflow/tensorflow:2.15.0-gpu

WORKDIR /advprop
# Before the code, so that a change to the code does not install all again.
COPY requirements.txt constraints.txt ./
RUN python -m pip install --no-cache-dir -r requirements.txt
COPY . .

ENTRYPOINT ["python", "main.py"]
