"""The pages as people meet them: in a browser, with a mouse, with a keyboard alone, on a phone, without scripts."""

import re
import secrets
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Error, expect, sync_playwright

PAGES = (
    "/",
    "/?kind=email",
    "/?kind=inference",
    "/?kind=pipeline",
    "/?kind=sleep",
    "/files",
    "/schedules",
    "/schedules/new?kind=report",
    "/stack",
    "/account",
)
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = {"width": 360, "height": 740}
WAIT = 60_000
"""Milliseconds that a task may take on a slow machine."""


@pytest.fixture(scope="module")
def chromium():
    """Debian's browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, stack):
    """visit(**options): a page of somebody new, in whose browser nothing may go wrong unseen."""
    contexts, complaints = [], []

    def note(message):
        # What a test asks for, such as a wrong password, is answered with a status that the browser reports, too.
        if message.type == "error" and not message.text.startswith("Failed to load resource: the server responded"):
            complaints.append(message.text)

    def visit(**options):
        contexts.append(chromium.new_context(base_url=stack.url, locale="en-GB", **options))
        page = contexts[-1].new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield visit
    for context in contexts:
        context.close()
    assert not complaints


def log_in(page, stack, to="/"):
    """Log in as the administrator, and come to a page."""
    page.goto(to)
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(stack.secrets["fba_app_admin_password"])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


@pytest.fixture
def page(visit, stack):
    """The start page, logged in."""
    page = visit()
    log_in(page, stack)
    return page


@pytest.fixture
def orders(tmp_path):
    """A CSV file with a name of its own; 3,000 orders in three cities."""
    path = tmp_path / f"orders-{secrets.token_hex(4)}.csv"
    lines = [f"{('Berlin', 'Paris', 'Rome')[number % 3]},{number},order {number}" for number in range(3000)]
    path.write_text("\n".join(["city,price,note", *lines]) + "\n")
    return path


@contextmanager
def without_reloading(page):
    """Make sure that what happens in here happens on the page as it is."""
    page.evaluate("window.unchanged = true")
    yield
    assert page.evaluate("window.unchanged === true"), "the page was loaded again"


def run(page):
    """Send the form of a task and return the row of the new task."""
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="The task is accepted.")).to_be_visible()
    name = page.locator(".task").first.get_attribute("id")
    return page.locator(f"#{name}")


def upload(page, path):
    """Upload a file and return its row."""
    page.goto("/files")
    page.get_by_label("File", exact=True).set_input_files(path)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("The file is uploaded.")).to_be_visible()
    return page.get_by_role("listitem").filter(has_text=path.name)


def succeeded(row):
    """Wait until a task has succeeded."""
    expect(row.locator(".state")).to_have_text("Succeeded", timeout=WAIT)


def rows_of(table):
    """Return the cells of a table's body."""
    return [row.locator("th, td").all_inner_texts() for row in table.locator("tbody tr").all()]


def test_a_wrong_password_is_refused_and_the_right_one_leads_to_where_one_wanted_to_go(visit, stack):
    page = visit()
    page.goto("/stack")
    expect(page).to_have_title(re.compile("^Log in"))
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Log in").click()
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text("The username or the password is wrong.")
    expect(alert).to_be_focused()
    expect(page.get_by_label("Username")).to_have_value("admin")
    expect(page.get_by_label("Password")).to_have_value("")
    page.get_by_label("Password").fill(stack.secrets["fba_app_admin_password"])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Stack")


def test_who_logs_out_is_out(page):
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("You are logged out.")).to_be_visible()
    page.goto("/")
    expect(page).to_have_url(re.compile(r"/login\?next="))


def test_progress_moves_until_the_task_is_done(page):
    page.goto("/?kind=sleep")
    page.get_by_label("Duration").fill("5")
    row = run(page)
    with without_reloading(page):
        expect(row.locator(".state")).to_have_text("Running", timeout=WAIT)
        bar = row.get_by_role("progressbar", name="Progress of Sleep for 5 seconds")
        seen = []
        while row.locator(".state").inner_text() == "Running":
            try:
                seen.append(bar.evaluate("bar => bar.value", timeout=500))
            except Error:
                break
            page.wait_for_timeout(200)
        succeeded(row)
        expect(page.locator("#live")).to_have_text("Sleep for 5 seconds: Succeeded")
    assert seen == sorted(seen)
    assert len(set(seen)) >= 3
    row.get_by_role("link").click()
    expect(page.get_by_text("Task completed in 5 seconds!")).to_be_visible()


def test_a_task_is_cancelled(page):
    page.goto("/?kind=sleep")
    page.get_by_label("Duration").fill("20")
    row = run(page)
    expect(row.locator(".state")).to_have_text("Running", timeout=WAIT)
    row.get_by_role("button", name="Cancel").click()
    expect(page.get_by_text("The task is being cancelled.")).to_be_visible()
    expect(row.locator(".state")).to_have_text("Cancelled", timeout=WAIT)


def test_a_report_is_made_and_downloaded(page):
    title = f"Report {secrets.token_hex(4)}"
    page.goto("/?kind=report")
    page.get_by_label("Title").fill(title)
    page.get_by_label("Everyone's").check()
    row = run(page)
    expect(row).to_contain_text(title)
    succeeded(row)
    for name, beginning in (("Download PDF", b"%PDF-"), ("Download XLSX", b"PK\x03\x04")):
        with page.expect_download() as download:
            row.get_by_role("link", name=name).click()
        content = Path(download.value.path()).read_bytes()
        assert content.startswith(beginning)
        assert len(content) > 1000
    page.goto("/files")
    expect(page.get_by_text(download.value.suggested_filename).first).to_be_visible()


def test_digits_are_drawn_and_read(page):
    page.goto("/?kind=inference")
    page.get_by_label("Sample of a 2").first.check()
    page.get_by_label("Sample of a 0").first.check()
    # A stroke from the top to the bottom.
    start, end = (page.get_by_label(f"Row {row}, column 4").bounding_box() for row in (1, 8))
    page.mouse.move(start["x"] + 10, start["y"] + 10)
    page.mouse.down()
    page.mouse.move(end["x"] + 10, end["y"] + 10, steps=30)
    page.mouse.up()
    assert page.locator(".drawing input:checked").count() == 8
    row = run(page)
    expect(row).to_contain_text("Read 3 digits")
    succeeded(row)
    row.get_by_role("link").click()
    readings = page.locator(".readings li")
    expect(readings).to_have_count(3)
    assert readings.locator("strong").all_inner_texts()[1:] == ["2", "0"]
    expect(readings.first).to_contain_text("% sure")


def test_statistics_of_an_uploaded_file(page, orders):
    row = upload(page, orders)
    row.get_by_role("link", name="Statistics").click()
    expect(page.get_by_label("File").locator("option:checked")).to_have_text(orders.name)
    page.get_by_label("Group by").fill("city")
    page.get_by_label("Value").fill("price")
    row = run(page)
    expect(row).to_contain_text(f"Statistics of {orders.name}")
    succeeded(row)
    expect(row).to_contain_text("3,000 rows")
    row.get_by_role("link").click()
    columns = {name: values for name, *values in rows_of(page.get_by_role("table", name="Columns"))}
    assert columns["price"][:7] == ["number", "3,000", "0", "0", "2,999", "4,498,500", "1,499.5"]
    assert columns["city"][:5] == ["text", "3,000", "0", "Berlin", "Rome"]
    groups = rows_of(page.get_by_role("table", name="price by city"))
    assert groups == [
        ["Berlin", "1,000", "1,498,500", "1,498.5", "0", "2,997"],
        ["Paris", "1,000", "1,499,500", "1,499.5", "1", "2,998"],
        ["Rome", "1,000", "1,500,500", "1,500.5", "2", "2,999"],
    ]
    page.goto("/files")
    page.get_by_role("link", name=f"Delete {orders.name}").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("The file is deleted.")).to_be_visible()
    expect(page.get_by_text(orders.name)).to_have_count(0)


def test_a_file_that_is_not_taken_is_refused_on_the_page(page, tmp_path):
    path = tmp_path / "program.exe"
    path.write_bytes(b"MZ")
    page.goto("/files")
    page.get_by_label("File", exact=True).set_input_files(path)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_role("alert")).to_contain_text("A file's name must end in one of .csv")
    expect(page.get_by_role("alert")).to_be_focused()
    # The form that came back works like the first one.
    path = path.rename(tmp_path / f"{secrets.token_hex(4)}.txt")
    page.get_by_label("File", exact=True).set_input_files(path)
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("The file is uploaded.")).to_be_visible()
    expect(page.get_by_role("listitem").filter(has_text=path.name)).to_be_visible()


def test_why_a_task_failed_is_shown(page, orders):
    upload(page, orders).get_by_role("link", name="Statistics").click()
    page.get_by_label("Group by").fill("country")
    row = run(page)
    expect(row.locator(".state")).to_have_text("Failed", timeout=WAIT)
    expect(row).to_contain_text("There is no column country.")


def test_an_email_is_sent_with_an_attachment(page, mailbox, orders):
    upload(page, orders)
    subject = f"Grüße {secrets.token_hex(4)}"
    page.goto("/?kind=email")
    page.get_by_label("To", exact=True).fill("one@example.com, two@example.com")
    page.get_by_label("Subject").fill(subject)
    page.get_by_label("Text").fill("Hello,\nthis is a message.")
    page.get_by_text("Copies and attachments").click()
    page.get_by_label("Bcc").fill("three@example.com")
    page.get_by_label(orders.name).check()
    row = run(page)
    succeeded(row)
    expect(row).to_contain_text("sent to 3 recipients")
    recipients, message = next(each for each in mailbox if each[1]["Subject"] == subject)
    assert sorted(recipients) == ["one@example.com", "three@example.com", "two@example.com"]
    assert "three@example.com" not in str(message["To"])
    assert message.get_body().get_content().splitlines() == ["Hello,", "this is a message."]
    assert [each.get_filename() for each in message.iter_attachments()] == [orders.name]
    row.get_by_role("link").click()
    expect(page.locator("section", has_text="The mail server took the message for:").first).to_contain_text("three@example.com")


def test_faults_are_shown_beside_their_fields_and_nothing_is_lost(page):
    page.goto("/?kind=email")
    page.get_by_label("To", exact=True).fill("nobody")
    page.get_by_label("Text").fill("Kept")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page).to_have_title(re.compile("^Error"))
    expect(page.get_by_role("alert")).to_be_focused()
    expect(page.get_by_label("To", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("To", exact=True)).to_have_accessible_description(re.compile("“nobody” is not in the right form."))
    expect(page.get_by_label("Subject")).to_have_accessible_description("Error: Fill this in.")
    expect(page.get_by_label("Text")).to_have_value("Kept")
    page.get_by_role("alert").get_by_role("link", name="Subject").click()
    expect(page.get_by_label("Subject")).to_be_focused()


def test_a_schedule_is_made_changed_run_and_deleted(page):
    name = f"Breathe {secrets.token_hex(4)}"
    page.goto("/schedules")
    page.get_by_role("link", name="New schedule").click()
    page.get_by_role("link", name="Sleep").click()
    page.get_by_label("Name").fill(name)
    page.get_by_label("Duration").fill("1")
    page.get_by_label("Crontab").fill("30 3 * * *")
    page.get_by_role("button", name="Create").click()
    row = page.get_by_role("listitem").filter(has_text=name)
    expect(row).to_contain_text("Enabled")
    expect(row).to_contain_text("30 3 * * *")
    expect(row).to_contain_text("next")

    row.get_by_role("link", name="Edit").click()
    expect(page.get_by_label("Crontab")).to_have_value("30 3 * * *")
    page.get_by_label("Crontab").fill("")
    page.get_by_label("Every").fill("86400")
    page.get_by_label("Duration").fill("2")
    page.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("every 1 d")

    row.get_by_role("button", name="Disable").click()
    expect(row).to_contain_text("Disabled")
    row.get_by_role("button", name="Run now").click()
    expect(page.get_by_text("A task of this schedule is accepted.")).to_be_visible()
    page.get_by_role("link", name="Tasks", exact=True).click()
    task = page.locator(".task").first
    expect(task).to_contain_text("Sleep for 2 seconds")
    succeeded(task)

    page.goto("/schedules")
    row.get_by_role("link", name="Delete").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("The schedule is deleted.")).to_be_visible()
    expect(page.get_by_text(name)).to_have_count(0)


def test_workers_and_queues_are_shown(page):
    page.get_by_role("link", name="Stack", exact=True).click()
    queues = {name: values for name, *values in rows_of(page.get_by_role("region", name="Table of queues").get_by_role("table"))}
    assert {"io", "cpu"} <= set(queues)
    assert all(int(consumers) >= 1 for name, (_, consumers) in queues.items() if name in ("io", "cpu"))

    workers = page.get_by_role("region", name="Table of workers")
    for part in ("Beat, for schedules", "Workers of io", "Workers of cpu"):
        expect(workers.get_by_role("row").filter(has_text=part)).to_contain_text("Working")
    for service in ("PostgreSQL", "Redis", "RabbitMQ"):
        expect(page.get_by_role("row").filter(has_text=service)).to_contain_text("Working")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_read_on_a_phone_in_light_and_dark(visit, stack, scheme):
    page = visit(viewport=PHONE, color_scheme=scheme, is_mobile=True)
    log_in(page, stack)
    tasks = page.locator(".task a.name").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    for path in (*PAGES, *tasks[:5]):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], path
        assert page.locator("h1").count() == 1, path
        brightness = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)")
        assert (max(brightness) < 64) if scheme == "dark" else (min(brightness) > 192), path
        faint = page.evaluate(CONTRASTS)
        assert not faint, path


# What is below 4.5:1 of the texts that are seen; backgrounds here are opaque, or those of an element further out.
CONTRASTS = """
() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => {
    const [r, g, b] = parse(color).slice(0, 3).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    const color = getComputedStyle(element).backgroundColor;
    return (parse(color)[3] ?? 1) > 0 ? color : ground(element.parentElement);
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility() || element.matches("svg *, :disabled")) continue;
    const [low, high] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => a - b);
    if ((high + 0.05) / (low + 0.05) < 4.5) faint.push(element.outerHTML.slice(0, 200));
  }
  return faint;
}
"""


def tab_to(page, selector):
    """Press the Tab key until that has the focus, which must be seen."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
            return
    pytest.fail(f"the Tab key does not lead to {selector}")


def test_a_keyboard_is_enough(visit, stack):
    page = visit()
    page.goto("/")
    tab_to(page, "#username")
    page.keyboard.type("admin")
    tab_to(page, "#password")
    page.keyboard.type(stack.secrets["fba_app_admin_password"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Tasks")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the content")).to_be_in_viewport()
    page.keyboard.press("Enter")
    expect(page.get_by_role("main")).to_be_focused()
    tab_to(page, "a[href='/?kind=inference']")
    page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="Draw a digit")).to_be_visible()

    tab_to(page, ".drawing input")
    for _ in range(4):
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Space")
    expect(page.get_by_label("Row 5, column 1")).to_be_focused()
    assert page.locator(".drawing input:checked").count() == 4
    tab_to(page, "button.primary")
    page.keyboard.press("Enter")
    row = page.locator(".task").first
    expect(row).to_contain_text("Read 2 digits")
    succeeded(row)


def test_nothing_needs_a_script(visit, stack, orders):
    page = visit(java_script_enabled=False)
    log_in(page, stack)
    page.goto("/?kind=sleep")
    page.get_by_label("Duration").fill("1")
    page.get_by_role("button", name="Run", exact=True).click()
    row = page.locator(".task").first
    expect(row).to_contain_text("Sleep for 1 second")
    for _ in range(60):
        if row.locator(".state").inner_text() == "Succeeded":
            break
        page.wait_for_timeout(500)
        page.goto("/")
    succeeded(row)

    upload(page, orders)
    page.get_by_role("link", name=f"Delete {orders.name}").click()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("The file is deleted.")).to_be_visible()

    page.goto("/?kind=inference")
    page.get_by_label("Row 1, column 1").check()
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".task").first).to_contain_text("Read 2 digits")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("You are logged out.")).to_be_visible()
