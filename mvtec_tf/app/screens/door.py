"""Errors, and the way in."""

from typing import Annotated

from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException as AnyHTTPException

from mvtec_tf.app import guard as guard_lib
from mvtec_tf.app.site import Site
from mvtec_tf.errors import UserError

# What libraries say -> key of what the page says.
_OF_LIBRARIES = {
    "Not Found": "not_found",
    "Method Not Allowed": "not_found",
    "There was an error parsing the body": "cut_off",
}


def add(app: FastAPI, site: Site) -> None:
    """Errors, and the way in."""

    # Of the libraries too: a form that is cut off, a method that an address does not take.
    @app.exception_handler(AnyHTTPException)
    def failed(request: Request, error: AnyHTTPException) -> Response:
        told, of_programs = error.detail, request.url.path.startswith("/api/")
        if told in _OF_LIBRARIES and not (of_programs and error.status_code != 404):
            told = site.text(_OF_LIBRARIES[told])
        if of_programs:
            return JSONResponse({"error": told}, error.status_code, error.headers)
        return site.page(request, "error.html", error.status_code, message=told)

    # Without this one an address that there is not is answered by the library itself.
    app.exception_handler(404)(failed)

    @app.exception_handler(RequestValidationError)
    def incomplete(request: Request, error: RequestValidationError) -> Response:
        fields = ", ".join(sorted({str(one["loc"][-1]) for one in error.errors()}))
        return failed(request, HTTPException(422, site.text("incomplete", fields=fields)))

    @app.exception_handler(UserError)
    def unusable(request: Request, error: UserError) -> Response:
        return failed(request, HTTPException(500, site.text.told(error)))

    @app.get("/login", include_in_schema=False)
    def login(request: Request) -> Response:
        return site.page(request, "login.html", wrong="")

    @app.post("/login", include_in_schema=False)
    def enter(request: Request, password: Annotated[str, Form()] = "", csrf: Annotated[str, Form()] = "") -> Response:
        site.own(request, csrf)
        address = request.client.host if request.client else ""
        if site.guard.waits(address):
            return site.page(request, "login.html", 429, wrong=site.text("too_often"))
        if not site.guard.asks or not site.guard.opens(password, address):
            return site.page(request, "login.html", 403, wrong=site.text("wrong_password"))
        return RedirectResponse("/", 303, {"set-cookie": guard_lib.cookie(site.guard.enter())})

    @app.post("/logout", include_in_schema=False)
    def leave(request: Request, csrf: Annotated[str, Form()] = "") -> Response:
        site.own(request, csrf)
        site.guard.leave(request.state.session)
        return RedirectResponse("/login", 303)

    @app.get("/healthz", include_in_schema=False)
    def health() -> Response:
        return PlainTextResponse("ok\n")
