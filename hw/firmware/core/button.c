#include "button.h"

void ec_button_edge(ec_button *button, bool level, uint64_t t_us)
{
    if (level == button->level)
        return;
    if (!button->unsettled) {
        button->unsettled = true;
        button->first_edge_us = t_us;
    }
    button->level = level;
    button->last_edge_us = t_us;
}

bool ec_button_settle(ec_button *button, uint64_t now_us, uint64_t *t_us)
{
    if (!button->unsettled || now_us < button->last_edge_us + EC_BUTTON_STABLE_US)
        return false;
    button->unsettled = false;
    if (button->level == button->down)
        return false;
    button->down = button->level;
    *t_us = button->first_edge_us;
    return true;
}
