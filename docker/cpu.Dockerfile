# The application on CPUs; docs/gpu.md has the commands.
#
#   docker build -f docker/cpu.Dockerfile -t advprop:cpu .
#
# The newest official image of the pinned stack's series. There is none of 2.15.1,
# which the requirements install.
FROM tensorflow/tensorflow:2.15.0

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
