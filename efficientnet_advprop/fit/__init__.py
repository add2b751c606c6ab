"""AdvProp for any Keras network: conversion, and a model to call `fit` on."""
