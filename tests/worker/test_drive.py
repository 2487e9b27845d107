import asyncio

from aigate.worker.drive import Drive


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

        Drive(whole(), loop)
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
        drive = Drive(handler(loop.create_future()), loop)
        await asyncio.sleep(0)
        await drive.cancel()
        assert said == ["cancelled", "tidied"]

    asyncio.run(main())


def test_cancel_before_the_first_step_runs_nothing_of_it():
    said = []

    async def handler():
        said.append("ran")

    async def main():
        drive = Drive(handler(), asyncio.get_running_loop())
        try:
            ended = drive.cancel()
            await asyncio.sleep(0)
        finally:
            assert not ended.done() or said == []

    errors = []

    async def watched():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
        await main()

    asyncio.run(watched())
    assert said == []
