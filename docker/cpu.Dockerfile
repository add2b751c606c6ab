# The application on CPUs; docs/gpu.md has the commands.
#
#   docker build -f docker/cpu.Dockerfile -t advprop:cpu .
#
# The newest official image of the pinned stack's series. There is none of 2.15.1,
# which the requirements install in its place.
FROM tensorflow/tensorflow:2.15.0

WORKDIR /advprop
# Before the code, so that a change to the code does not install all again.
COPY requirements.txt constraints.txt ./
RUN python -m pip install --no-cache-dir -r requirements.txt
COPY . .

ENTRYPOINT ["python", "main.py"]
