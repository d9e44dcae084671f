"""The method: flow matching, identity schedules, faces, backbones and sampling. Imports neither trainers nor studio."""
