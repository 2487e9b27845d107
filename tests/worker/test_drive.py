import asyncio

from aigate.worker.drive import Drive


def start(coroutine, loop) -> Drive:
    def on_end(_, problem):
        if problem is not None:
            raise problem

    drive = Drive(coroutine, loop, on_end, None)
    drive.resume()
    return drive


def run(scenario) -> list[str]:
    """What `scenario(said)` said, run by a Drive inside a running loop until it ended or was cancelled."""
    said: list[str] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        async def whole() -> None:
            try:
                await scenario(said)
            finally:
                ended.set_result(None)

        start(whole(), loop)
        await ended

    asyncio.run(main())
    return said


def test_resumes_with_what_was_awaited():
    async def scenario(said):
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, "later")
        said.append(await future)
        await asyncio.sleep(0)
        said.append(await loop.run_in_executor(None, str, 7))
        said.append(await loop.create_task(asyncio.sleep(0, "task")))

    assert run(scenario) == ["later", "7", "task"]


def test_failures_of_what_is_awaited_are_raised_there():
    async def scenario(said):
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_exception, ValueError("no"))
        try:
            await future
        except ValueError as error:
            said.append(str(error))

    assert run(scenario) == ["no"]


def test_cancel_reaches_the_await_and_tells_when_it_has_ended():
    said = []

    async def handler(future):
        try:
            await future
        except asyncio.CancelledError:
            said.append("cancelled")
            await asyncio.sleep(0)
            said.append("tidied")

    async def main():
        loop = asyncio.get_running_loop()
        drive = start(handler(loop.create_future()), loop)
        await drive.cancel()
        assert said == ["cancelled", "tidied"]

    asyncio.run(main())


def test_the_first_step_is_taken_at_once_and_the_end_told_with_what_was_raised():
    ends = []

    async def whole():
        pass

    async def broken():
        raise ValueError("no")

    loop = asyncio.new_event_loop()
    Drive(whole(), loop, lambda name, problem: ends.append((name, problem)), "whole").resume()
    Drive(broken(), loop, lambda name, problem: ends.append((name, str(problem))), "broken").resume()
    loop.close()
    assert ends == [("whole", None), ("broken", "no")]


def test_a_cancel_that_is_not_caught_is_told_as_such():
    ends = []

    async def main():
        loop = asyncio.get_running_loop()
        drive = Drive(asyncio.sleep(60), loop, lambda _, problem: ends.append(problem), None)
        drive.resume()
        await drive.cancel()

    asyncio.run(main())
    assert isinstance(ends[0], asyncio.CancelledError)
