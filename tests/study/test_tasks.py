"""The study's tasks: problems, traces and what is said of their segments."""

import itertools
import random

import pytest

from study import chain, search
from study.tasks import TASKS, dataset


@pytest.mark.parametrize("problems", [task.problems for task in TASKS.values()])
def test_training_and_held_out_problems_are_disjoint(problems):
    train = {problem.text for problem in itertools.islice(problems(0, False), 400)}
    held_out = {problem.text for problem in itertools.islice(problems(0, True), 60)}
    assert train and held_out and not train & held_out


@pytest.mark.parametrize("name", TASKS)
def test_one_seed_gives_one_list_of_problems(name):
    task = TASKS[name]
    texts = [[problem.text for problem in task.sample_problems(20, seed, held_out=False)] for seed in (3, 4)]
    again = [problem.text for problem, _ in zip(task.problems(3, False), range(20), strict=False)]
    assert texts[0] == again != texts[1]


def test_rows_hold_the_problem_and_its_answer():
    problem = search.problems(0, False).__next__()
    row = dataset([problem])[0]
    assert row == {
        "prompt": [{"role": "user", "content": problem.text}],
        "solution": f"\\boxed{{{problem.answer}}}",
    }


def test_every_search_problem_has_one_solution():
    for problem in search.all_problems():
        ways = ["".join(moves) for moves in itertools.product(search.MOVES, repeat=search.LENGTH)]
        assert [way for way in ways if search.turn(problem.start, way) == problem.goal] == [problem.answer]


def test_a_faultless_trace_is_a_search_that_ends_at_the_goal():
    rng, style = random.Random(0), search.TraceStyle(clean=1, clean_slip=0, early=0)
    first_moves = []
    for problem, _ in zip(search.problems(0, False), range(300), strict=False):
        segments, ending = search.make_trace(problem, rng, style)
        assert ending == f"</think>\n\n\\boxed{{{problem.answer}}}"
        assert len(segments) < search.LONGEST
        walk = [segment for segment in segments if "dead end" not in segment]
        assert len(set(walk)) == len(walk), "no move is made twice"
        assert set(search.label_segments(problem, segments)) <= {"step", "dead end", "fix"}
        assert segments[-1].endswith(f"{problem.goal:02}\n\n")
        first_moves.append(segments[0].split()[1] == problem.answer[0])
    assert 0.4 < sum(first_moves) / 300 < 0.6, "the search knows beforehand where to go"


def test_overthinking_traces_are_what_the_study_needs():
    rng = random.Random(0)
    pool = zip(search.problems(1, False), range(1500), strict=False)
    traces = [(problem, *search.make_trace(problem, rng, search.TraceStyle())) for problem, _ in pool]
    assert all(segment.endswith("\n\n") for _, segments, _ in traces for segment in segments)
    right = sum(ending.endswith(f"\\boxed{{{problem.answer}}}") for problem, _, ending in traces) / len(traces)
    assert 0.45 < right < 0.7
    assert sum(len(segments) > 2 for _, segments, _ in traces) / len(traces) > 0.8, "few traces have more than k = 2"
    labels = {label for problem, segments, _ in traces for label in search.label_segments(problem, segments)}
    assert labels == {"step", "wrong", "dead end", "fix", "recheck", "filler", "restart"}


def test_labels_of_an_eventful_thought():
    problem = search.Problem(start=12, goal=search.turn(12, "aba"), answer="aba")
    thought = {
        "12 a 20\n\n": "wrong",  # 12 + 7 = 19
        "Wait, check 12 a: 19\n\n": "fix",
        "Let me check 12 a: 19\n\n": "recheck",
        "19 a 26\n\n": "dead end",
        "26: dead end, go back to 19\n\n": "fix",
        "Hmm.\n\n": "filler",
        "19 b 57\n\n": "step",
        "No, start over.\n\n": "restart",
        "12 a 19 \n\n": "recheck",
        "19 b 57 \n\n": "recheck",
        "57: dead end, go back to 19\n\n": "wrong",
        "55 a 62\n\n": "wrong",  # the thought does not stand on 55
        "Wait, check 55 a: 63\n\n": "wrong",
    }
    assert search.label_segments(problem, list(thought)) == list(thought.values())
    assert search.label_segments(problem, []) == []
    assert search.label_segments(problem, ["\n\n", "99 z 1\n\n", "go back to 99\n\n"]) == ["filler", "filler", "wrong"]


def test_a_guess_goes_on_from_where_the_thought_broke_off():
    rng, style = random.Random(0), search.TraceStyle(clean=1, clean_slip=0, early=1)
    guessed = 0
    for problem, _ in zip(search.problems(2, False), range(200), strict=False):
        segments, ending = search.make_trace(problem, rng, style)
        path = [(problem.start, "")]  # numbers and the moves that led there
        for segment in segments:
            words = segment.split()
            if "dead end" in segment:
                while path[-1][0] != int(words[-1]) or len(path) > search.LENGTH:
                    path.pop()
            else:
                path.append((int(words[2]), path[-1][1] + words[1]))
        answer = ending.removeprefix("</think>\n\n").removeprefix("\\boxed{").removesuffix("}")
        assert len(answer) == search.LENGTH and answer.startswith(path[-1][1])
        guessed += len(path) <= search.LENGTH
    assert guessed > 50


def test_chain_problems_have_an_answer_of_one_length():
    for problem, _ in zip(chain.problems(0, False), range(200), strict=False):
        assert len(problem.answer) == chain.LENGTH == len(str(int(problem.answer)))
    assert chain.Problem(3, ("+4", "-5", "+6", "+1", "-7")).answer == "72892"


def test_a_faultless_chain_trace_holds_one_right_step_a_letter():
    rng, style = random.Random(0), chain.TraceStyle(clean=1, clean_slip=0, early=0)
    for problem, _ in zip(chain.problems(0, False), range(100), strict=False):
        segments, ending = chain.make_trace(problem, rng, style)
        assert chain.label_segments(problem, segments) == ["step"] * chain.LENGTH
        assert ending == f"</think>\\boxed{{{problem.answer}}}"


def chain_traces(count, **style):
    rng = random.Random(0)
    pool = zip(chain.problems(1, False), range(count), strict=False)
    return [(problem, *chain.make_trace(problem, rng, chain.TraceStyle(**style))) for problem, _ in pool]


def test_chain_traces_are_long_and_mostly_neutral():
    traces = chain_traces(1500)
    labels = [label for problem, segments, _ in traces for label in chain.label_segments(problem, segments)]
    assert len(labels) / len(traces) >= 12
    neutral = sum(label in ("recheck", "filler", "restart") for label in labels)
    assert neutral > 1.4 * sum(label in chain.USEFUL for label in labels)
    assert set(labels) == {"step", "wrong", "carried", "fix", "recheck", "filler", "restart"}


def test_overthinking_chain_traces_are_right_about_as_often_as_clean_ones():
    right = [
        sum(
            ending.endswith(f"{{{problem.answer}}}") for problem, _, ending in chain_traces(3000, clean=clean, early=0)
        )
        for clean in (0, 1)
    ]
    assert abs(right[0] - right[1]) / 3000 < 0.08


def test_labels_of_an_eventful_chain():
    problem = chain.Problem(3, ("+4", "-5", "+6", "+1", "-7"))  # 7, 2, 8, 9, 2
    thought = {
        "A: 3+4 = 7\n\n": "step",
        "B: 7-5 = 4\n\n": "wrong",
        "C: 4+6 = 0\n\n": "carried",
        "Hmm.\n\n": "filler",
        "No, start over.\n\n": "restart",
        "A: 3+4 = 7 \n\n": "recheck",
        "B: 7-5 = 2\n\n": "fix",
        "C: 2+6 = 9\n\n": "wrong",
        "Wait, check C: 2+6 = 8\n\n": "fix",
        "Let me check C: 2+6 = 8\n\n": "recheck",
        "D: 8-1 = 7\n\n": "wrong",  # another change than the problem's
        "D: 8+1 = 9\n\n": "fix",
        "E: 9-7 = 2\n\n": "step",
        "F: 2+1 = 3\n\n": "filler",  # there is no F
    }
    assert chain.label_segments(problem, list(thought)) == list(thought.values())
    assert chain.label_segments(problem, []) == []


def test_an_early_chain_answer_keeps_what_the_thought_has_settled():
    guessed = 0
    for _, segments, ending in chain_traces(300, early=1):
        claims = {}
        for segment in segments:
            if " = " in segment:
                words = segment.removesuffix("\n\n").split()
                claims["ABCDE".index(words[-4][0])] = words[-1]
        answer = ending.removeprefix("</think>").removeprefix("\\boxed{").removesuffix("}")
        assert len(answer) == 5 and all(answer[index] == digit for index, digit in claims.items())
        guessed += len(claims) < 5
    assert guessed > 100
