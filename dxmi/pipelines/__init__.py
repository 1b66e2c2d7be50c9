"""Saved diffusers pipelines: loading by one set of rules, calling, drawing."""

from dxmi.pipelines.calls import PipelineCall as PipelineCall
from dxmi.pipelines.calls import call_of_folder as call_of_folder
from dxmi.pipelines.calls import class_count as class_count
from dxmi.pipelines.checked_files import PipelineFiles as PipelineFiles
from dxmi.pipelines.checked_files import download as download
from dxmi.pipelines.checked_files import look as look
from dxmi.pipelines.draw import PipelineDraw as PipelineDraw
from dxmi.pipelines.frozen import keep_what_learns as keep_what_learns
from dxmi.pipelines.frozen import matches as matches
from dxmi.pipelines.load import load_pipeline as load_pipeline
from dxmi.pipelines.load import what_else as what_else
from dxmi.pipelines.teachers import families as families
from dxmi.pipelines.teachers import family_of as family_of
from dxmi.pipelines.teachers import pipeline_names as pipeline_names
