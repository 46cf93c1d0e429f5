# A use case inside an image, for machines without the folder: docker build --build-arg BASE=driftloop/serving:0.1.0 …
ARG BASE
FROM ${BASE}
COPY . /usecases/built
