"""All pages."""

from fastapi import APIRouter

from fba_app.web import account, files, schedules, stack, tasks

router = APIRouter(include_in_schema=False)
for each in (account, tasks, files, schedules, stack):
    router.include_router(each.router)
