"""The application's own face pack: a detector, a recogniser and a sex and age model, trained on rendered
people.

python -m trainers.mini.faces render        people cut out of rendered pictures, with landmarks, sex and age
python -m trainers.mini.faces gather        the same from the mini bundle's cut-outs
python -m trainers.mini.faces train MODEL   detector, recogniser or attributes
python -m trainers.mini.faces export        the three as ONNX in an InsightFace model pack
python -m trainers.mini.faces measure       held-out people, and photographs where there are some
"""
