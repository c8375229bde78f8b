"""The application's own tests, where it runs."""


def test_the_applications_integration_tests_pass_against_the_stack(stack):
    run = stack.play("../tests/app/run.yml")
    assert run.returncode == 0, run.stdout
    assert " passed" in run.stdout
    assert stack.host.run("docker inspect fba_app_test").rc != 0
    assert stack.host.run("ls /etc/fba/fba_app_test").rc != 0
