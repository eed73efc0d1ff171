"""Takes the picture of the page in docs/app.md, in the environment of `make app-test`.

.venv-app/bin/python tests/app/screenshot.py docs/page.png
"""

import io
import sys
import tempfile

from browser import opened, served, wait
from PIL import Image


def main(path):
    with tempfile.TemporaryDirectory() as folder, served(folder, '--model=demo') as address, opened(address) as page:
        page.locator('#examples tbody tr').nth(1).click()  # sentences about motion
        page.wait_for_selector('#film video')
        page.click('#segment')
        wait(page, page.locator('#sentences textarea').input_value().splitlines())
        page.locator('#frame input[type=range]').fill('12')
        page.wait_for_timeout(2000)
        shot = page.screenshot(full_page=True)
    # 256 colours: a third of the bytes.
    Image.open(io.BytesIO(shot)).convert('RGB').quantize(256).save(path, optimize=True)


if __name__ == '__main__':
    main(sys.argv[1])
