def make_report(d): 
    import json; print(json.dumps(d.steps.result("judge") if d.steps.is_done("judge") else {},indent=1)); return {}
def is_green(r): return True
